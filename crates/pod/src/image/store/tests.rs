//! The store, filled from layouts and archives, by several at once, and emptied again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::image::testing::{Made, Packing, layer};
use crate::image::{
    Digest, EnsureError, Event, LayerState, Location, Platform, Progress, Quiet, Reference,
    ResolvedImage, Wanted,
};
use crate::plan::PullPolicy;

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

fn two_layers() -> Vec<Vec<u8>> {
    vec![
        layer(&[("etc/os", b"base"), ("gone", b"x"), ("big", &[7; 300_000])]),
        layer(&[("app/run", b"program"), (".wh.gone", b"")]),
    ]
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("store"));
        Self { dir, store }
    }

    fn layout(&self, made: &Made, tag: &str) -> Location {
        let dir = self.dir.path().join("layout");
        made.write_layout(&dir, tag);
        Location::Layout {
            dir,
            tag: Some(tag.to_owned()),
        }
    }

    fn get(&self, location: &Location) -> Result<ResolvedImage, EnsureError> {
        let wanted = Wanted::new(location.clone(), PullPolicy::IfNotPresent);
        self.store.ensure_blocking(&wanted, &Quiet)
    }

    fn entries(&self, of: &str) -> Vec<String> {
        let entries = fs::read_dir(self.store.root().join(of)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Progress for Told {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn an_image_of_a_layout() {
    for packing in [Packing::Gzip, Packing::Zstd, Packing::None] {
        let world = World::new();
        let config = json!({
            "Entrypoint": ["/app/run"], "Cmd": null, "Env": ["PATH=/bin", "A=b=c"], "User": "web:web",
            "WorkingDir": "/app", "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}
        });
        let made = Made::image(&two_layers(), packing, &config);
        let location = world.layout(&made, "v1");
        let told = Told::default();
        let wanted = Wanted::new(location.clone(), PullPolicy::Never);
        let image = world.store.ensure_blocking(&wanted, &told).unwrap();
        assert_eq!(image.digest, made.descriptor().digest);
        assert_eq!(Some(&image.id), made.config.as_ref());
        assert!(image.pulled.is_some());
        let read = |layer: usize, path: &str| fs::read(image.layers[layer].join(path));
        assert_eq!(read(0, "app/run").unwrap(), b"program");
        assert_eq!(read(1, "etc/os").unwrap(), b"base");
        assert!(read(0, "etc/os").is_err());
        assert_eq!(image.config.entrypoint, ["/app/run"]);
        assert!(image.config.cmd.is_empty());
        assert_eq!(image.config.env[1], ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(image.config.user.as_deref(), Some("web:web"));
        assert_eq!(image.config.working_dir.as_deref(), Some(Path::new("/app")));
        assert_eq!(image.config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(image.config.exposed_ports, ["80/tcp"]);
        let sizes: u64 = made.blobs.values().map(|blob| blob.len() as u64).sum();
        assert_eq!(image.size_bytes, sizes);
        let told = told.0.into_inner().unwrap();
        assert_eq!(told[0], Event::Pulling);
        let done = |event: &&Event| {
            matches!(
                event,
                Event::Layer {
                    state: LayerState::Done,
                    ..
                }
            )
        };
        assert_eq!(told.iter().filter(done).count(), 2);
        // Nothing of the work is left, and the second time there is none.
        assert!(world.entries("partial").is_empty());
        assert!(
            !world
                .entries("layers")
                .iter()
                .any(|name| name.ends_with(".new"))
        );
        assert_eq!(world.get(&location).unwrap().pulled, None);
    }
}

#[test]
fn an_image_without_layers() {
    let world = World::new();
    let made = Made::image(&[], Packing::None, &json!(null));
    let image = world.get(&world.layout(&made, "empty")).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(fs::read_dir(&image.layers[0]).unwrap().count(), 0);
}

#[test]
fn layers_are_shared_and_repeated_blobs_come_once() {
    let world = World::new();
    let [base, app] = two_layers().try_into().unwrap();
    let one = Made::image(
        &[base.clone(), app.clone(), base.clone()],
        Packing::Gzip,
        &json!({}),
    );
    let two = Made::image(&[base, app], Packing::Gzip, &json!({}));
    let one = world.get(&world.layout(&one, "one")).unwrap();
    let two = world.get(&world.layout(&two, "two")).unwrap();
    assert_eq!(one.layers[1..], two.layers[..]);
    assert_eq!(world.entries("blobs/sha256").len(), 2 + 2 * 2);
}

#[test]
fn what_is_not_what_it_should_be_is_refused() {
    let refused = |change: &dyn Fn(&mut Made), why: &str| {
        let world = World::new();
        let mut made = Made::image(&two_layers(), Packing::Gzip, &json!({}));
        change(&mut made);
        let error = world.get(&world.layout(&made, "v1")).unwrap_err();
        assert_eq!(error.reason(), "ErrImagePull");
        let error = error.to_string();
        assert!(error.contains(why), "{error}");
        // Nothing has a name, and nothing half is left unpacked.
        assert!(world.store.list(&Platform::host()).unwrap().is_empty());
        let layers = world.entries("layers");
        assert!(
            layers.iter().all(|name| name.ends_with(".lock")),
            "{layers:?}"
        );
        // The same image, right, can be had then.
        let right = Made::image(&two_layers(), Packing::Gzip, &json!({}));
        fs::remove_dir_all(world.dir.path().join("layout")).unwrap();
        world.get(&world.layout(&right, "v1")).unwrap();
    };
    let layer = Made::image(&two_layers(), Packing::Gzip, &json!({}));
    let manifest: crate::image::Manifest =
        serde_json::from_slice(&layer.blobs[&layer.descriptor().digest.to_string()]).unwrap();
    let digest = manifest.layers[0].digest.to_string();
    let blob = |made: &mut Made, change: &dyn Fn(&mut Vec<u8>)| {
        change(made.blobs.get_mut(&digest).unwrap());
    };
    // The right length, another byte, deep in the packed data.
    refused(
        &|made| blob(made, &|bytes| bytes[200] ^= 1),
        &format!("layer {digest}"),
    );
    refused(
        &|made| blob(made, &|bytes| bytes.truncate(100)),
        "it ended too early",
    );
    refused(
        &|made| blob(made, &|bytes| bytes.extend(b"more")),
        "has more",
    );
    refused(
        &|made| {
            made.blobs.remove(&digest);
        },
        "No such file",
    );
    refused(
        &|made| {
            let config = made.config.clone().unwrap().to_string();
            made.blobs.get_mut(&config).unwrap()[3] ^= 1;
        },
        "is not what it should be",
    );
}

#[test]
fn a_diff_id_that_lies() {
    let world = World::new();
    let mut made = Made::image(&two_layers(), Packing::Gzip, &json!({}));
    let manifest = made.blobs[&made.descriptor().digest.to_string()].clone();
    let mut manifest: crate::image::Manifest = serde_json::from_slice(&manifest).unwrap();
    let config = made.blobs[&manifest.config.digest.to_string()].clone();
    let right = Digest::of(&two_layers()[0]).to_string();
    let config = String::from_utf8(config)
        .unwrap()
        .replace(&right, &Digest::of(b"x").to_string());
    manifest.config = made.add(
        "application/vnd.oci.image.config.v1+json",
        config.into_bytes(),
    );
    let bytes = serde_json::to_vec(&manifest).unwrap();
    made.manifest = Some(made.add("application/vnd.oci.image.manifest.v1+json", bytes));
    let error = world
        .get(&world.layout(&made, "v1"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("and the configuration says sha256:2d711642b"),
        "{error}"
    );
    assert!(
        world
            .entries("layers")
            .iter()
            .all(|name| name.ends_with(".lock"))
    );
}

#[test]
fn what_a_killed_pull_left_is_gone_on_with() {
    let world = World::new();
    let made = Made::image(&two_layers(), Packing::Gzip, &json!({}));
    let location = world.layout(&made, "v1");
    world.store.prepare().unwrap();
    // Half a blob, right so far; another one that is not; and half a layer.
    let bytes = &made.blobs[&made.descriptor().digest.to_string()];
    let manifest: crate::image::Manifest = serde_json::from_slice(bytes).unwrap();
    let partial = |number: usize| {
        let digest = &manifest.layers[number].digest;
        world
            .store
            .root()
            .join("partial")
            .join(format!("sha256-{}", digest.hex()))
    };
    let first = &made.blobs[&manifest.layers[0].digest.to_string()];
    fs::write(partial(0), &first[..first.len() / 2]).unwrap();
    let chain_id = Digest::of(&two_layers()[0]);
    let new = world
        .store
        .root()
        .join(format!("layers/.{}.new", chain_id.hex()));
    fs::create_dir_all(new.join("etc/old")).unwrap();
    let image = world.get(&location).unwrap();
    assert!(!image.layers[1].join("etc/old").exists());
    assert_eq!(fs::read(image.layers[1].join("etc/os")).unwrap(), b"base");

    let world = World::new();
    let location = world.layout(&made, "v1");
    world.store.prepare().unwrap();
    let wrong = world
        .store
        .root()
        .join("partial")
        .join(partial(1).file_name().unwrap());
    fs::write(wrong, b"not the bytes").unwrap();
    // It is found out at the end, forgotten, and right the next time.
    assert!(world.get(&location).is_err());
    world.get(&location).unwrap();
}

#[test]
fn many_at_once() {
    let world = World::new();
    let [base, app] = two_layers().try_into().unwrap();
    let many = |extra: u8| {
        let mut layers = vec![base.clone(), app.clone()];
        layers.extend((0..6).map(|n| layer(&[("n", &[n]), ("extra", &[extra])])));
        Made::image(&layers, Packing::Gzip, &json!({}))
    };
    let locations = [world.layout(&many(0), "a"), world.layout(&many(1), "b")];
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..6)
            .map(|n| {
                let (world, location) = (&world, &locations[n % 2]);
                scope.spawn(move || world.get(location).unwrap().digest)
            })
            .collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(digests.iter().zip(&digests[2..]).all(|(a, b)| a == b));
    assert_eq!(world.store.list(&Platform::host()).unwrap().len(), 2);
    assert!(world.entries("partial").is_empty());
}

fn save(world: &World, made: &Made, names: &[&str]) -> PathBuf {
    // As `docker save` writes it.
    let bytes = &made.blobs[&made.descriptor().digest.to_string()];
    let manifest: crate::image::Manifest = serde_json::from_slice(bytes).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, data).unwrap();
    };
    let mut layers = Vec::new();
    for (number, layer) in manifest.layers.iter().enumerate() {
        let path = format!("{number}/layer.tar");
        add(&path, &made.blobs[&layer.digest.to_string()]);
        layers.push(path);
    }
    add(
        "config.json",
        &made.blobs[&manifest.config.digest.to_string()],
    );
    let items = json!([{ "Config": "config.json", "RepoTags": names, "Layers": layers }]);
    add("manifest.json", &serde_json::to_vec(&items).unwrap());
    let path = world.dir.path().join("saved.tar");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    path
}

#[test]
fn archives() {
    let world = World::new();
    for packing in [Packing::None, Packing::Gzip] {
        let made = Made::image(&two_layers(), packing, &json!({}));
        let file = save(&world, &made, &["docker.io/library/saved:1", "reg.io/x:2"]);
        let archive = |name: Option<&str>| Location::Archive {
            file: file.clone(),
            name: name.map(str::to_owned),
        };
        let image = world.get(&archive(Some("saved:1"))).unwrap();
        assert_eq!(Some(&image.id), made.config.as_ref());
        assert_eq!(
            fs::read(image.layers[0].join("app/run")).unwrap(),
            b"program"
        );
        assert_eq!(world.get(&archive(None)).unwrap().digest, image.digest);
        let error = world.get(&archive(Some("other"))).unwrap_err().to_string();
        assert!(
            error.contains("there is no image \"other\" in it (saved:1, reg.io/x:2)"),
            "{error}"
        );
    }
    // Packed as a whole; and with names.
    let made = Made::image(&two_layers(), Packing::None, &json!({}));
    let file = save(&world, &made, &["saved:1"]);
    let packed = world.dir.path().join("saved.tar.gz");
    let bytes = crate::image::testing::pack(&fs::read(&file).unwrap(), Packing::Gzip);
    fs::write(&packed, bytes).unwrap();
    let loaded = world
        .store
        .load(&packed, &Platform::host(), &Quiet)
        .unwrap();
    let name: Reference = "saved:1".parse().unwrap();
    assert_eq!(loaded[0].names, std::slice::from_ref(&name));
    let by_name = Wanted::new(Location::Registry(name), PullPolicy::Never);
    assert_eq!(
        world.store.ensure_blocking(&by_name, &Quiet).unwrap().id,
        loaded[0].id
    );
    fs::write(&packed, "no archive at all").unwrap();
    let error = world
        .store
        .load(&packed, &Platform::host(), &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with(&packed.display().to_string()), "{error}");
}

#[test]
fn names_move_and_nothing_in_use_is_removed() {
    let world = World::new();
    let image = |extra: &[u8]| {
        Made::image(
            &[two_layers()[0].clone(), layer(&[("extra", extra)])],
            Packing::None,
            &json!({}),
        )
    };
    let load = |made: &Made, names: &[&str]| {
        let file = save(&world, made, names);
        world.store.load(&file, &Platform::host(), &Quiet).unwrap()
    };
    let named = |name: &str, policy| {
        let location = Location::Registry(name.parse::<Reference>().unwrap().with_default_tag());
        world
            .store
            .ensure_blocking(&Wanted::new(location, policy), &Quiet)
    };
    let absent = named("app", PullPolicy::Never).unwrap_err();
    assert_eq!(absent.reason(), "ErrImageNeverPull");
    assert_eq!(
        absent.to_string(),
        "Container image \"app:latest\" is not present with pull policy of Never"
    );
    load(&image(b"1"), &["app:latest"]);
    let first = named("app", PullPolicy::Never).unwrap();
    load(&image(b"2"), &["app:latest", "app:2"]);
    let second = named("app", PullPolicy::Never).unwrap();
    assert_ne!(first.digest, second.digest);
    let by_digest = format!("app@{}", second.digest);
    assert_eq!(
        named(&by_digest, PullPolicy::Never).unwrap().digest,
        second.digest
    );
    assert!(named(&format!("other@{}", second.digest), PullPolicy::Never).is_err());

    // The one that lost its name is there while it is used, and gone after.
    let list = || world.store.list(&Platform::host()).unwrap();
    assert_eq!(list().len(), 3);
    assert_eq!(list().iter().filter(|image| image.used).count(), 3);
    assert_eq!(world.store.prune(false).unwrap().deleted, []);
    let top = first.layers[0].clone();
    drop(first);
    let pruned = world.store.prune(false).unwrap();
    assert_eq!(pruned.deleted.len(), 1);
    assert!(pruned.bytes > 0 && !top.exists());
    assert!(second.layers.iter().all(|layer| layer.is_dir()));

    let rm = |names: &[&str]| {
        world
            .store
            .remove(&names.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert!(matches!(rm(&["nothing"]), Err(StoreError::NoSuchImage(_))));
    // One of two names can go, the last can't; and nothing goes when one can't.
    let removed = rm(&["app:2"]).unwrap();
    assert_eq!(removed.untagged, ["docker.io/library/app:2"]);
    assert_eq!(removed.deleted, []);
    assert!(matches!(rm(&["app"]), Err(StoreError::InUse(_))));
    assert_eq!(world.store.prune(true).unwrap().deleted, []);
    let (id, short) = (second.id.to_string(), second.id.hex()[..12].to_owned());
    drop(second);
    assert_eq!(
        world
            .store
            .inspect(&short, &Platform::host())
            .unwrap()
            .names,
        ["docker.io/library/app:latest"]
    );
    assert_eq!(
        world
            .store
            .inspect(&id, &Platform::host())
            .unwrap()
            .config
            .rootfs
            .diff_ids
            .len(),
        2
    );
    assert_eq!(rm(&[&short]).unwrap().deleted.len(), 1);
    for directory in ["blobs/sha256", "layers", "leases", "partial"] {
        assert_eq!(world.entries(directory), [""; 0], "{directory}");
    }
}

#[test]
fn others_cannot_look_into_layers() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.store.prepare().unwrap();
    for directory in ["", "layers", "blobs"] {
        let mode = world
            .store
            .root()
            .join(directory)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
}
