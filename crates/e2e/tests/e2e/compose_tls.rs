//! examples/compose-tls: what the Compose file and the README tell Docker is what `podkit tls` takes: the files are read,
//! and the module runs with their variables. (With a Docker Engine: `docker.rs`)

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::repository;
use podkit_testkit::tls::Client;
use serde_json::Value;

use crate::docs::surface;
use crate::ground::read;

#[test]
fn every_variable_is_one_that_the_module_declares() {
    let tls = &compose()["services"]["tls"];
    let module = tls["command"][0].as_str().unwrap();
    let surface = surface();
    let modules = surface["modules"].as_array().unwrap();
    let module = modules.iter().find(|known| known["name"] == module);
    let declared: Vec<&str> = module.unwrap()["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| parameter["variable"].as_str().unwrap())
        .collect();
    let variables = environment(tls);
    assert!(variables.contains_key("PODKIT_UPSTREAM"));
    for name in variables.keys() {
        assert!(declared.contains(&name.as_str()), "{name}");
    }
    // What `podkit image build` calls the image.
    let image = format!("podkit:{}", surface["version"].as_str().unwrap());
    assert_eq!(tls["image"], image);
}

/// The two services meet on a network, by the name and the port that the variables say.
#[test]
fn the_services_fit_together() {
    let compose = compose();
    let (app, tls) = (&compose["services"]["app"], &compose["services"]["tls"]);
    let network = app["networks"][0].as_str().unwrap();
    assert_eq!(tls["networks"], app["networks"]);
    assert!(compose["networks"].get(network).is_some());
    let variables = environment(tls);
    assert!(variables["PODKIT_UPSTREAM"].starts_with("app:"));
    let published = tls["ports"][0].as_str().unwrap();
    assert!(published.ends_with(&variables["PODKIT_LISTEN"]));
    let mounted = tls["volumes"][0].as_str().unwrap();
    assert!(mounted.contains(&format!(":{}:", variables["PODKIT_CERT_DIR"])));
}

#[test]
fn the_docker_command_says_the_same() {
    let readme = read(&repository().join("examples/compose-tls/README.md"));
    let words = readme.split_whitespace().collect::<Vec<_>>();
    let given: BTreeMap<String, String> = words
        .windows(2)
        .filter(|pair| pair[0] == "-e")
        .map(|pair| pair[1].split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let compose = compose();
    let tls = &compose["services"]["tls"];
    assert_eq!(given, environment(tls));
    assert!(words.contains(&tls["image"].as_str().unwrap()));
    assert!(words.contains(&tls["ports"][0].as_str().unwrap()));
}

/// With the places of this machine instead of a container's.
#[test]
fn the_module_runs_with_these_variables() {
    let certs = tempfile::tempdir().unwrap();
    let (listen, app) = (free_addr(), free_addr());
    let _app = Module::start("echo", &["--listen", &app.to_string()], &[]);
    let compose = compose();
    let mut variables = environment(&compose["services"]["tls"]);
    for (name, value) in [
        ("PODKIT_LISTEN", listen.to_string()),
        ("PODKIT_UPSTREAM", app.to_string()),
        ("PODKIT_CERT_DIR", certs.path().display().to_string()),
    ] {
        assert!(variables.insert(name.to_owned(), value).is_some());
    }
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let tls = Module::start("tls", &[], &variables);
    let page = Client::trusting().get(listen, "localhost", "/").unwrap();
    assert_eq!(page.status, 200, "{}", tls.process.shown());
}

pub(crate) fn compose() -> Value {
    let text = read(&repository().join("examples/compose-tls/compose.yaml"));
    let mut events = Parser::new_from_str(&text).map(|event| {
        event
            .unwrap_or_else(|error| panic!("compose.yaml: {error}"))
            .0
    });
    let begun: Vec<Event<'_>> = events.by_ref().take(2).collect();
    assert!(matches!(
        begun[..],
        [Event::StreamStart, Event::DocumentStart(..)]
    ));
    let first = events.next().unwrap();
    value(first, &mut events)
}

/// Every scalar as its text: Compose's environment is text too.
fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ..) => text.into_owned().into(),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().unwrap() {
                    Event::SequenceEnd => return items.into(),
                    item => items.push(value(item, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut object = serde_json::Map::new();
            loop {
                match events.next().unwrap() {
                    Event::MappingEnd => return object.into(),
                    Event::Scalar(key, ..) => {
                        let item = events.next().unwrap();
                        let known = object.insert(key.to_string(), value(item, events));
                        assert!(known.is_none(), "{key} twice");
                    }
                    key => panic!("a key is a text: {key:?}"),
                }
            }
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_object().unwrap();
    variables
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}
