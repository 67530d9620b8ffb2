//! An example that is deployed to by git, started as its README says.

use std::path::PathBuf;
use std::process::Command;

use podkit_testkit::git::git;
use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::process::run;
use podkit_testkit::{http, repository};

use crate::ground::{Ground, read};

pub(crate) struct Pushed {
    pub(crate) ground: Ground,
    pub(crate) pod: Pod,
    /// A clone of the repository.
    work: PathBuf,
    _dir: tempfile::TempDir,
}

impl Pushed {
    /// `name` is the example's, `repo` its repository's. None when this machine lacks a program.
    pub(crate) fn start(name: &str, repo: &str, programs: &[&'static str]) -> Option<Self> {
        let ground = Ground::with(programs)?;
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("repositories");
        let example = repository().join("examples").join(name);
        let text = read(&example.join("pod.yaml"));
        let there = format!("/run/{name}");
        assert!(text.contains(&format!("path: {there}")));
        let text = text.replace(&there, &here.display().to_string());
        let variable = name.replace('-', "_").to_uppercase();
        let mut setup = Command::new(example.join("setup.sh"));
        run("setup.sh", setup.env(variable, &here)).ok();
        let pod = Pod::run_text(&text, &[]);
        pod.wait_ready();
        let from = here.join(repo);
        git(
            dir.path(),
            &["clone", "-q", &from.to_string_lossy(), "work"],
        );
        Some(Self {
            ground,
            pod,
            work: dir.path().join("work"),
            _dir: dir,
        })
    }

    /// What the application answers.
    pub(crate) fn page(&self) -> String {
        http::get(loopback(8080), "/").unwrap().text()
    }

    /// What git-sync serves.
    pub(crate) fn admin(&self, path: &str) -> String {
        http::get(loopback(9603), path).unwrap().text()
    }

    /// Pushes a file; returns the commit.
    pub(crate) fn push(&self, file: &str, text: &str) -> String {
        std::fs::write(self.work.join(file), text).unwrap();
        git(&self.work, &["commit", "-q", "-a", "-m", "next"]);
        git(&self.work, &["push", "-q"]);
        git(&self.work, &["rev-parse", "HEAD"]).trim().to_owned()
    }
}
