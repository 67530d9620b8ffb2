//! What a container may not take from others: memory, disk, files.

use super::*;

pub(super) fn out_of_memory() {
    if !std::path::Path::new("/sys/fs/cgroup/memory").exists()
        && !std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|all| all.contains("memory"))
    {
        println!("  (no memory controller here)");
        return;
    }
    alone(|| {
        let spec = r#"
  restartPolicy: Never
  containers:
  - {name: app, image: podkit, args: [app, hog, "200"], resources: {limits: {memory: 48Mi}}}
"#;
        let (code, lines, _) = Pod::start(&manifest("oom", spec), &[]).end();
        assert_eq!(code, Some(1));
        let end = lines
            .iter()
            .find(|line| line["state"] == "terminated")
            .expect("an end");
        assert_eq!(
            (&end["exitCode"], &end["reason"]),
            (&137.into(), &"OOMKilled".into())
        );
    });
}

pub(super) fn eviction() {
    alone(|| {
        let spec = r#"
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - name: app
    image: podkit
    args: [app, fill, /data/file, "2048"]
    volumeMounts: [{name: data, mountPath: /data}]
"#;
        let mut pod = Pod::start(&manifest("evict", spec), &[]);
        let evicted = pod.wait("Evicted", |line| line["reason"] == "Evicted");
        assert_eq!(
            evicted["message"],
            "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\"."
        );
        let (code, lines, _) = pod.end();
        assert_eq!(
            (code, &lines.last().expect("an end")["phase"]),
            (Some(1), &"Failed".into())
        );
    });
}

pub(super) fn eviction_by_what_a_container_logs() {
    alone(|| {
        let spec = r#"
  containers:
  - {name: app, image: podkit, args: [app, flood], resources: {limits: {ephemeral-storage: 64Ki}}}
"#;
        let mut pod = Pod::start(&manifest("evlog", spec), &[]);
        let evicted = pod.wait("Evicted", |line| line["reason"] == "Evicted");
        // With one container the pod's limit is the same, and the kubelet looks at that first.
        assert_eq!(
            evicted["message"],
            "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki."
        );
        let (code, lines, _) = pod.end();
        assert_eq!(
            (code, &lines.last().expect("an end")["phase"]),
            (Some(1), &"Failed".into())
        );
    });
}

/// Root in a container makes a set-user-id program of every file of the machine that it can write to: no other user of the
/// machine may reach one.
pub(super) fn what_containers_write_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    fn walk(dir: &std::path::Path, closed: bool, found: &mut Vec<(std::path::PathBuf, bool)>) {
        let look = std::fs::metadata(dir).expect("a directory");
        let mode = look.permissions().mode();
        let closed = closed || mode & 0o077 == 0;
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let metadata = entry.metadata().expect("an entry");
            let kind = metadata.file_type();
            if kind.is_dir() {
                walk(&entry.path(), closed, found);
            } else if kind.is_file() && metadata.permissions().mode() & 0o4000 != 0 {
                found.push((entry.path(), closed));
            }
        }
    }
    alone(|| {
        let spec = r#"
  containers:
  - name: app
    image: podkit
    args: [app, suid, /etc/hosts, /etc/hostname, /etc/resolv.conf, /dev/termination-log, /data/x]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - {name: data, emptyDir: {}}
"#;
        let mut pod = Pod::start(&manifest("suid", spec), &[]);
        pod.log("app", "made");
        let mut found = Vec::new();
        walk(&pod.dir.path().join("state"), false, &mut found);
        assert_eq!(found.len(), 5, "{found:?}");
        let open: Vec<_> = found.iter().filter(|(_, closed)| !closed).collect();
        assert!(open.is_empty(), "{open:?}");
        pod.stop();
    });
}
