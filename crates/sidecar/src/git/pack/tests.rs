//! Packs that git makes, read and taken in as git does; and what is no pack.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gix_hash::ObjectId;
use gix_object::Kind;
use podkit_testkit::git::{Repository, command, git};
use tempfile::TempDir;

use super::{Objects, is_bad, is_full, take};

/// Bytes that don't compress.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

struct Ground {
    dir: TempDir,
    repository: Repository,
}

impl Ground {
    /// With a history of small files and of one that is too large for memory.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path(), "app");
        let mut large = noise(1, 6 << 20);
        for version in 0..12_u8 {
            for file in 0..8 {
                let lines: String = (0..200).map(|line| format!("{file} {line}\n")).collect();
                repository.write(
                    &format!("d{}/f{file}", file % 3),
                    format!("{lines}{version}"),
                );
            }
            if version % 4 == 0 {
                large[usize::from(version) * 1000] ^= 1;
                repository.write("large", &large);
            }
            repository.publish(&format!("version {version}"));
        }
        Self { dir, repository }
    }

    /// What `git pack-objects` makes.
    fn pack(&self, options: &[&str], revisions: &str) -> Vec<u8> {
        let args = [&["pack-objects", "--stdout", "--revs", "-q"], options].concat();
        let mut child = command(&self.repository.bare, &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(revisions.as_bytes()).unwrap();
        drop(input);
        child.wait_with_output().unwrap().stdout
    }

    fn store(&self, name: &str) -> Store {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.join("objects/pack")).unwrap();
        Store { path }
    }

    /// All of the repository, by git's own words.
    fn all(&self) -> Vec<(ObjectId, Kind)> {
        let format = "--batch-check=%(objectname) %(objecttype)";
        let args = ["cat-file", format, "--batch-all-objects"];
        let text = git(&self.repository.bare, &args);
        let line = |line: &str| {
            let (id, kind) = line.split_once(' ').unwrap();
            let kind = Kind::from_bytes(kind.as_bytes()).unwrap();
            (ObjectId::from_hex(id.as_bytes()).unwrap(), kind)
        };
        text.lines().map(line).collect()
    }

    /// Whether an object is what git says that it is.
    fn is_same(&self, objects: &Objects, id: ObjectId, kind: Kind) {
        let text = id.to_string();
        let args = [
            "cat-file",
            std::str::from_utf8(kind.as_bytes()).unwrap(),
            &text,
        ];
        let output = command(&self.repository.bare, &args).output().unwrap();
        let mut bytes = Vec::new();
        objects.pass(&id, kind, &mut bytes).unwrap();
        assert!(bytes == output.stdout, "{kind} {id}");
        objects.read(&id, kind, &mut bytes).unwrap();
        assert!(bytes == output.stdout, "{kind} {id}");
    }
}

struct Store {
    path: PathBuf,
}

impl Store {
    fn objects(&self) -> io::Result<Objects> {
        Objects::open(&self.path.join("objects"), &self.path)
    }

    fn packs(&self) -> PathBuf {
        self.path.join("objects/pack")
    }

    fn take(&self, mut pack: &[u8], name: &str) -> io::Result<()> {
        let older = self.objects()?;
        take(&mut pack, &self.packs(), name, &self.path, &older)
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.packs()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_pack_is_read_and_indexed_as_git_does() {
    let ground = Ground::new();
    // Deltas by offset, by name, and none.
    let forms: [&[&str]; 3] = [
        &["--delta-base-offset", "--window=50"],
        &[],
        &["--window=0"],
    ];
    for (number, options) in forms.into_iter().enumerate() {
        let store = ground.store(&format!("store-{number}"));
        let pack = ground.pack(options, "main\n");
        store.take(&pack, "pack-0").unwrap();
        assert_eq!(store.files(), ["pack-0.idx", "pack-0.pack"]);
        let file = store.packs().join("pack-0.pack");
        assert!(fs::read(&file).unwrap() == pack);
        let index = fs::read(file.with_extension("idx")).unwrap();
        let theirs = ground.dir.path().join("theirs.idx");
        let (file, shown) = (file.to_string_lossy(), theirs.to_string_lossy());
        git(
            &ground.repository.bare,
            &["index-pack", "-o", &shown, &file],
        );
        assert!(index == fs::read(&theirs).unwrap(), "{options:?}");
        let objects = store.objects().unwrap();
        for (id, kind) in ground.all() {
            ground.is_same(&objects, id, kind);
        }
        // Nothing was left in the files that large objects are held in.
        let left = fs::read_dir(&store.path).unwrap().count();
        assert_eq!(left, 1, "{options:?}");
    }
}

#[test]
fn a_thin_pack_builds_on_those_before_it() {
    let ground = Ground::new();
    let store = ground.store("store");
    let whole = ground.pack(&["--delta-base-offset"], "main~6\n");
    store.take(&whole, "pack-0").unwrap();
    let thin = ground.pack(&["--delta-base-offset", "--thin"], "main\n^main~6\n");
    let alone = ground.store("alone").take(&thin, "pack-0").unwrap_err();
    assert!(
        is_bad(&alone) && alone.to_string().contains("which is not here"),
        "{alone}"
    );
    store.take(&thin, "pack-1").unwrap();
    let objects = store.objects().unwrap();
    for (id, kind) in ground.all() {
        ground.is_same(&objects, id, kind);
    }
    let main = git(&ground.repository.bare, &["rev-parse", "main"]);
    let main = ObjectId::from_hex(main.as_bytes()).unwrap();
    assert_eq!(objects.peel(main).unwrap(), main);
    let blob = git(&ground.repository.bare, &["rev-parse", "main:large"]);
    let blob = ObjectId::from_hex(blob.as_bytes()).unwrap();
    let refused = objects.peel(blob).unwrap_err().to_string();
    assert!(refused.ends_with("is a blob, not a commit"), "{refused}");
}

#[test]
fn what_is_no_pack_leaves_nothing() {
    let ground = Ground::new();
    let store = ground.store("store");
    let good = ground.pack(&["--delta-base-offset"], "main:d0\nmain~3:d1\n");
    let check = |bytes: &[u8], what: &str| {
        let error = store.take(bytes, "pack-0").expect_err(what);
        assert!(is_bad(&error) && !is_full(&error), "{what}: {error}");
        assert!(store.files().is_empty(), "{what}: {:?}", store.files());
    };
    for cut in 0..good.len() {
        check(&good[..cut], &format!("cut at {cut}"));
    }
    for at in 0..good.len() {
        let mut spoilt = good.clone();
        spoilt[at] ^= 0x10;
        check(&spoilt, &format!("a flipped bit at {at}"));
    }
    store.take(&good, "pack-0").unwrap();
    // What lies on a disk may be spoilt too: the object is refused, or is as it was.
    let id = git(&ground.repository.bare, &["rev-parse", "main:d0/f0"]);
    let id = ObjectId::from_hex(id.as_bytes()).unwrap();
    let mut right = Vec::new();
    let objects = store.objects().unwrap();
    objects.read(&id, Kind::Blob, &mut right).unwrap();
    let mut refused = 0;
    for end in ["pack", "idx"] {
        let path = store.packs().join("pack-0").with_extension(end);
        let good = fs::read(&path).unwrap();
        let mut spoilt = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let mut bytes = Vec::new();
            let opened = store.objects();
            match opened.and_then(|objects| objects.read(&id, Kind::Blob, &mut bytes)) {
                Ok(()) => assert!(bytes == right),
                Err(error) => {
                    refused += 1;
                    assert!(is_bad(&error), "{error}");
                }
            }
        };
        for at in (0..good.len()).step_by(3) {
            spoilt(&good[..at]);
            let mut flipped = good.clone();
            flipped[at] ^= 0x40;
            spoilt(&flipped);
        }
        fs::write(&path, good).unwrap();
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn loose_and_borrowed_objects_are_objects_too() {
    let ground = Ground::new();
    let bare = &ground.repository.bare;
    let borrower = ground.dir.path().join("borrower.git");
    let args = [
        "clone",
        "-q",
        "--bare",
        "--shared",
        "app.git",
        "borrower.git",
    ];
    git(ground.dir.path(), &args);
    let check = |repository: &Path| {
        let objects = Objects::open(&repository.join("objects"), ground.dir.path()).unwrap();
        for (id, kind) in ground.all() {
            ground.is_same(&objects, id, kind);
        }
        objects
    };
    check(bare);
    let before = check(&borrower);
    // Packed while somebody reads.
    git(bare, &["repack", "-q", "-a", "-d"]);
    for (id, kind) in ground.all() {
        ground.is_same(&before, id, kind);
    }
    let nobody = ObjectId::null(gix_hash::Kind::Sha1);
    let missing = before.peel(nobody).unwrap_err();
    assert!(is_bad(&missing), "{missing}");
}
