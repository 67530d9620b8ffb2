//! The engine on directories of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use podkit_foundation::params::{ParamSet as _, ParamType as _, Values};
use tempfile::TempDir;

use super::*;

/// The parameters with these flags.
pub(crate) fn params(flags: &[(&str, &str)]) -> PublishParams {
    let flag = |param: &podkit_foundation::params::Param| {
        let given = flags.iter().filter(|(name, _)| *name == param.flag());
        given.map(|(_, value)| (*value).to_owned()).collect()
    };
    let values = Values::gather(PublishParams::PARAMS.iter(), &flag, &|_| None);
    PublishParams::from_values(&values).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Data,
    Link,
    InPlace,
}

const FORMS: [Form; 3] = [Form::Data, Form::Link, Form::InPlace];

impl Form {
    fn place(self, dir: &Path) -> Place {
        match self {
            Self::Data => Place::Data(dir.join("out")),
            Self::Link => Place::Link {
                root: dir.join("root"),
                link: dir.join("root/live"),
            },
            Self::InPlace => Place::InPlace(dir.join("out")),
        }
    }
}

fn engine(form: Form, dir: &Path, flags: &[(&str, &str)]) -> Engine {
    let settings = PublishSettings {
        place: form.place(dir),
        params: params(flags),
    };
    Engine::open(settings).unwrap()
}

fn publish(engine: &mut Engine, files: &[(&str, &str)]) -> Result<Published, Refused> {
    let staged = engine.stage().unwrap();
    for (name, text) in files {
        let path = staged.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    engine.publish(staged, "v")
}

fn read(engine: &Engine, name: &str) -> Option<String> {
    fs::read_to_string(engine.place().join(name)).ok()
}

#[test]
fn a_set_replaces_the_former_one() {
    for form in FORMS {
        let dir = TempDir::new().unwrap();
        let mut engine = engine(form, dir.path(), &[("keep", "1")]);
        let first = publish(&mut engine, &[("a", "1"), ("d/b", "1")]).unwrap();
        assert_eq!((first.id.as_str(), first.files), ("00000001-v", 2));
        assert_eq!(read(&engine, "d/b").as_deref(), Some("1"), "{form:?}");
        publish(&mut engine, &[("a", "2"), ("c", "2")]).unwrap();
        assert_eq!(read(&engine, "a").as_deref(), Some("2"), "{form:?}");
        assert_eq!(
            (read(&engine, "d/b"), read(&engine, "c")),
            (None, Some("2".to_owned()))
        );
        assert!(
            !engine.place().join("d").is_symlink(),
            "{form:?}: no link to nothing"
        );
        for _ in 0..3 {
            publish(&mut engine, &[("a", "3"), ("c", "2")]).unwrap();
        }
        assert_eq!(engine.current().as_deref(), Some("00000005-v"));
        // One before it, and nothing else but the lock and the note.
        let store = form.place(dir.path()).store();
        let names = fs::read_dir(store)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names
            .filter(|name| name != "lock" && name != "current")
            .collect();
        names.sort();
        let expected: &[&str] = match form {
            Form::InPlace => &["00000004-v"],
            _ => &["00000004-v", "00000005-v"],
        };
        assert_eq!(names, expected, "{form:?}");
    }
}

#[test]
fn a_set_that_is_empty_or_lost_too_much_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut one = engine(Form::Data, dir.path(), &[]);
    let why = publish(&mut one, &[]).unwrap_err();
    assert_eq!(why.to_string(), "guard: the source has no files");
    publish(&mut one, &[("a", ""), ("b", ""), ("c", ""), ("d", "")]).unwrap();
    let why = publish(&mut one, &[("a", "")]).unwrap_err();
    assert_eq!(
        why.to_string(),
        "guard: 3 of 4 files vanished (b, …), more than --max-vanish 50%"
    );
    assert_eq!(why.back, Back::Unseen);
    assert!(read(&one, "d").is_some());
    publish(&mut one, &[("a", ""), ("b", "")]).unwrap();
    drop(one);
    let mut one = engine(Form::Data, dir.path(), &[("max-vanish", "100%")]);
    publish(&mut one, &[("z", "")]).unwrap();
    let why = publish(&mut one, &[]).unwrap_err();
    assert_eq!(why.step, Step::Guard);
}

#[test]
fn what_is_not_ours_stays() {
    for form in FORMS {
        let dir = TempDir::new().unwrap();
        let mut engine = engine(form, dir.path(), &[]);
        let (foreign, named) = match form {
            Form::Link => (
                dir.path().join("root/live"),
                "root/live is not a symbolic link",
            ),
            Form::Data => (
                dir.path().join("out/a"),
                "out/a was not published by podkit",
            ),
            Form::InPlace => (
                dir.path().join("out/a"),
                "out has files that podkit did not publish",
            ),
        };
        fs::create_dir_all(foreign.parent().unwrap()).unwrap();
        fs::write(&foreign, "mine").unwrap();
        let why = publish(&mut engine, &[("a", "1")]).unwrap_err();
        assert!(why.why.contains(named), "{form:?}: {why}");
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");
    }
}

#[test]
fn a_validation_sees_the_set_that_nobody_else_sees() {
    for form in FORMS {
        let dir = TempDir::new().unwrap();
        let flags = [("validate", "exec:grep -q good {}/a")];
        let mut engine = engine(form, dir.path(), &flags);
        publish(&mut engine, &[("a", "good 1")]).unwrap();
        let why = publish(&mut engine, &[("a", "bad")]).unwrap_err();
        assert_eq!(
            (why.step, &why.back),
            (Step::Validate, &Back::Unseen),
            "{why}"
        );
        assert_eq!(read(&engine, "a").as_deref(), Some("good 1"));
    }
}

#[test]
fn what_is_not_confirmed_goes_back_and_is_reloaded() {
    for form in FORMS {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("log");
        let reload = format!("exec:sh -c 'cat {{}}/a >>{}'", log.display());
        let confirm = format!(
            "exec:sh -c 'grep -q good {}'",
            form.place(dir.path()).path().join("a").display()
        );
        let flags = [
            ("reload", reload.as_str()),
            ("confirm", confirm.as_str()),
            ("confirm-timeout", "1s"),
        ];
        let mut engine = engine(form, dir.path(), &flags);
        let why = publish(&mut engine, &[("a", "bad0;")]).unwrap_err();
        assert_eq!(
            (why.step, &why.back),
            (Step::Confirm, &Back::Withdrawn),
            "{form:?} {why}"
        );
        assert_eq!((read(&engine, "a"), engine.current()), (None, None));
        let first = publish(&mut engine, &[("a", "good;")]).unwrap();
        let why = publish(&mut engine, &[("a", "bad;"), ("b", "")]).unwrap_err();
        assert_eq!(
            why.back,
            Back::RolledBack(first.id.clone()),
            "{form:?} {why}"
        );
        assert_eq!(
            (read(&engine, "a").as_deref(), read(&engine, "b")),
            (Some("good;"), None)
        );
        assert_eq!(engine.current(), Some(first.id));
        assert_eq!(fs::read_to_string(&log).unwrap(), "bad0;good;bad;good;");
        // It goes on from there.
        publish(&mut engine, &[("a", "good2;")]).unwrap();
        assert_eq!(read(&engine, "a").as_deref(), Some("good2;"));
    }
}

#[test]
fn an_engine_has_its_place_alone() {
    let dir = TempDir::new().unwrap();
    let _one = engine(Form::Data, dir.path(), &[]);
    let settings = PublishSettings {
        place: Form::Data.place(dir.path()),
        params: params(&[]),
    };
    let why = Engine::open(settings).unwrap_err();
    assert!(why.starts_with("another process publishes to "), "{why}");
}

#[test]
fn owner_and_mode_are_as_asked() {
    let dir = TempDir::new().unwrap();
    let uid = rustix::process::geteuid().as_raw().to_string();
    let mut engine = engine(
        Form::Data,
        dir.path(),
        &[("chmod", "0640"), ("chown", &uid)],
    );
    publish(&mut engine, &[("d/a", "1")]).unwrap();
    let mode = |name| {
        fs::metadata(engine.place().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        (mode("d/a"), mode("d"), mode("..data")),
        (0o640, 0o750, 0o750)
    );
    let meta = fs::metadata(engine.place().join("d/a")).unwrap();
    assert_eq!(meta.uid().to_string(), uid);
}

#[test]
fn actions_are_read() {
    let check = |text: &str, shown: &str| {
        let read = Action::parse(text).map(|action| action.to_string());
        assert_eq!(read, Ok(shown.to_owned()), "{text}");
    };
    check(
        "exec:nginx -t -c '{}/nginx conf'",
        "exec:nginx -t -c {}/nginx conf",
    );
    check(
        "http:POST:http://h:9/-/reload",
        "http:POST:http://h:9/-/reload",
    );
    check("http:https://h/x:y", "http:GET:https://h:443/x:y");
    check("http://h/", "http:GET:http://h:80/");
    check("tcp::80", "tcp::80");
    check("tcp:unix:/s", "tcp:unix:/s");
    for wrong in [
        "",
        "true",
        "exec:",
        "exec:'a",
        "http:",
        "http:DELETE:http://h/",
        "tcp:80",
        "shell:x",
    ] {
        assert!(Action::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(
        super::action::words(r#"a 'b c' "d\"e" f\ g '' "#),
        Ok(["a", "b c", "d\"e", "f g", ""].map(str::to_owned).to_vec())
    );
    let blind = params(&[("validate", "exec:nginx -t")]);
    let why = blind.check().unwrap_err().to_string();
    assert!(why.contains("never names the staged files"), "{why}");
    let tcp = params(&[("reload", "tcp::80")]);
    assert!(
        tcp.check()
            .unwrap_err()
            .to_string()
            .contains("is for --confirm")
    );
}

#[test]
fn actions_that_fail_say_how() {
    let run_for = |ms: u64, text: &str| {
        let context = Context {
            tree: Path::new("/tree"),
            agent: Path::new("/no-agent"),
            timeout: std::time::Duration::from_millis(ms),
        };
        Action::parse(text)
            .unwrap()
            .run(context)
            .map_err(|error| error.why)
    };
    let run = |text: &str| run_for(20_000, text);
    assert_eq!(run("exec:test {} = /tree"), Ok(()));
    let why = run("exec:sh -c 'echo one; echo two >&2; exit 3'").unwrap_err();
    assert!(why.ends_with("exit status: 3: one; two"), "{why}");
    let why = run("exec:no-such-program").unwrap_err();
    assert!(
        why.ends_with("there is no program no-such-program in this container"),
        "{why}"
    );
    let begun = std::time::Instant::now();
    let why = run_for(300, "exec:sh -c 'sleep 20; true'").unwrap_err();
    assert!(why.ends_with("not done within 300 ms"), "{why}");
    assert!(begun.elapsed().as_secs() < 15);
    let why = run("tcp:127.0.0.1:1").unwrap_err();
    assert!(
        why.starts_with("127.0.0.1:1 can't be connected to"),
        "{why}"
    );
    let why = run("http:http://127.0.0.1:1/x").unwrap_err();
    assert!(
        why.starts_with("http://127.0.0.1:1/x can't be connected to"),
        "{why}"
    );
}

#[test]
fn a_path_is_where_people_look() {
    assert_eq!(
        Place::InPlace(PathBuf::from("/a/b")).store(),
        Path::new("/a/.b.podkit")
    );
}
