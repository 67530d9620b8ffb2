//! Images before containers: order, events and back-off.

use super::*;
use crate::image::Location;

fn from_registry(name: &str, role: Role) -> ContainerPlan {
    ContainerPlan {
        image: format!("r.example/{name}:1"),
        source: ImageSource::Image(Location::Registry("r.example/x:1".parse().unwrap())),
        ..container(name, role)
    }
}

fn pulled(took: Option<u64>) -> Result<Option<Pulled>, PullFailure> {
    Ok(Some(Pulled {
        image_id: "r.example/x@sha256:1".to_owned(),
        took: took.map(|ms| Took {
            pull: Duration::from_millis(ms),
            with_waiting: Duration::from_millis(ms + 1000),
        }),
        size_bytes: 4096,
    }))
}

fn failed(reason: &'static str) -> Result<Option<Pulled>, PullFailure> {
    let message = "Failed to pull image \"r.example/app:1\": manifest unknown".to_owned();
    Err(PullFailure {
        reason,
        message,
        of_volume: None,
    })
}

impl Story {
    fn pull(&mut self, name: &str, pulled: Result<Option<Pulled>, PullFailure>) -> Vec<String> {
        let (id, run) = self.id(name);
        self.on(Input::Pulled { id, run, pulled })
    }
}

fn app() -> Story {
    let mut story = Story::new(&plan(
        RestartPolicy::Never,
        vec![from_registry("app", Role::Main)],
    ));
    assert_eq!(story.begin(), ["pull app"]);
    story
}

#[test]
fn a_container_starts_when_its_image_is_there() {
    let mut story = app();
    let events = story.events(Input::Pulling { id: 0, run: 0 });
    assert_eq!(events, ["Pulling Pulling image \"r.example/app:1\""]);
    let events = story.events(Input::Pulled {
        id: 0,
        run: 0,
        pulled: pulled(Some(61_234)),
    });
    assert_eq!(
        events,
        [
            "Pulled Successfully pulled image \"r.example/app:1\" in 1m1.234s (1m2.234s including waiting). Image size: 4096 bytes."
        ]
    );
    assert_eq!(story.status("app").image_id, "r.example/x@sha256:1");
    assert_eq!(story.started("app"), NOTHING);
    assert_eq!(story.machine.phase(), Phase::Running);
}

#[test]
fn every_restart_asks_again() {
    let mut story = Story::new(&plan(
        RestartPolicy::Always,
        vec![from_registry("app", Role::Main)],
    ));
    story.begin();
    assert_eq!(story.pull("app", pulled(None)), ["start app"]);
    story.started("app");
    assert_eq!(story.exited("app", 1), ["pull app"]);
    let events = story.events(Input::Pulled {
        id: 0,
        run: 1,
        pulled: pulled(None),
    });
    assert_eq!(
        events[0],
        "Pulled Container image \"r.example/app:1\" already present on machine"
    );
}

#[test]
fn the_kubelets_back_off() {
    let mut story = app();
    let mut clock = Duration::ZERO;
    for wait in [10, 20, 40, 80, 160, 300, 300] {
        let events = story.events(Input::Pulled {
            id: 0,
            run: 0,
            pulled: failed("ErrImagePull"),
        });
        assert_eq!(
            events,
            [
                "Failed Failed to pull image \"r.example/app:1\": manifest unknown",
                "Failed Error: ErrImagePull",
            ]
        );
        assert_eq!(story.waits("app").0, "ErrImagePull");
        assert_eq!(story.wake(), Some(clock + S));
        story.now.at = story.begin + clock + S;
        assert_eq!(
            story.events(Input::Tick),
            [
                "BackOff Back-off pulling image \"r.example/app:1\"",
                "Failed Error: ImagePullBackOff",
            ]
        );
        assert_eq!(
            story.waits("app"),
            (
                "ImagePullBackOff",
                "Back-off pulling image \"r.example/app:1\": ErrImagePull: Failed to pull image \"r.example/app:1\": manifest unknown"
            )
        );
        clock += wait * S;
        assert_eq!(story.at(clock - S / 10), NOTHING);
        assert_eq!(story.wake(), Some(clock));
        assert_eq!(story.at(clock), ["pull app"], "whatever the restart policy");
    }
    assert_eq!(story.machine.phase(), Phase::Pending);
    assert_eq!(story.pull("app", pulled(None)), ["start app"]);
}

#[test]
fn never_is_looked_for_again_but_not_backed_off_from() {
    let mut story = app();
    let events = story.events(Input::Pulled {
        id: 0,
        run: 0,
        pulled: failed("ErrImageNeverPull"),
    });
    assert_eq!(events.len(), 2);
    assert!(events[0].starts_with("ErrImageNeverPull "), "{events:?}");
    assert_eq!(events[1], "Failed Error: ErrImageNeverPull");
    assert_eq!(story.wake(), Some(10 * S));
    assert_eq!(story.waits("app").0, "ErrImageNeverPull");
    assert_eq!(story.at(10 * S), ["pull app"]);
}

#[test]
fn images_come_in_the_order_of_the_containers_and_none_waits_for_one_that_fails() {
    let mut story = Story::new(&plan(
        RestartPolicy::Always,
        vec![
            from_registry("init", Role::Init),
            from_registry("one", Role::Main),
            from_registry("two", Role::Main),
        ],
    ));
    assert_eq!(story.begin(), ["pull init"]);
    assert_eq!(story.pull("init", failed("ErrImagePull")), NOTHING);
    assert_eq!(story.at(S), NOTHING);
    assert_eq!(story.at(10 * S), ["pull init"]);
    assert_eq!(story.pull("init", pulled(Some(5))), ["start init"]);
    story.started("init");
    assert_eq!(story.exited("init", 0), ["pull one"]);
    assert_eq!(story.pull("one", failed("ErrImagePull")), ["pull two"]);
    assert_eq!(story.pull("two", pulled(None)), ["start two"]);
    assert_eq!(story.at(20 * S), ["pull one"]);
    assert_eq!(story.pull("one", pulled(None)), ["start one"]);
}

#[test]
fn a_stop_ends_a_pull_and_what_comes_late_is_nothing() {
    let mut story = app();
    let actions = story.machine.on(story.now, Input::Stop);
    assert!(actions.contains(&Action::StopProbes { id: 0 }));
    assert_eq!(actions.last(), Some(&Action::Finished));
    assert_eq!(story.pull("app", pulled(None)), NOTHING);
    let mut story = app();
    story.pull("app", failed("ErrImagePull"));
    assert_eq!(story.on(Input::Stop), ["finished"]);
}

#[test]
fn durations_as_go_writes_them() {
    for (ms, expected) in [
        (0, "0s"),
        (7, "7ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (62_030, "1m2.03s"),
        (3_600_000, "1h0m0s"),
    ] {
        assert_eq!(
            crate::probe::go_duration(Duration::from_millis(ms)),
            expected
        );
    }
}

/// A pod whose first container mounts an image, and whose second does not.
fn with_image_volume() -> Story {
    let mounted = ContainerPlan {
        mounts: vec![crate::plan::MountPlan::new("data", "/data")],
        ..container("app", Role::Main)
    };
    let mut pod = plan(
        RestartPolicy::Always,
        vec![mounted, container("other", Role::Main)],
    );
    pod.volumes = vec![crate::plan::VolumePlan {
        name: "data".to_owned(),
        kind: crate::plan::VolumeKind::Image {
            image: "r.example/data:1".to_owned(),
            location: Location::Registry("r.example/data:1".parse().unwrap()),
            pull: crate::plan::PullPolicy::IfNotPresent,
        },
    }];
    Story::new(&pod)
}

#[test]
fn the_image_of_a_volume_is_waited_for_by_who_mounts_it() {
    let mut story = with_image_volume();
    assert_eq!(story.begin(), ["pull app"]);
    // Its own image is at hand.
    let events = story.events(Input::Pulled {
        id: 0,
        run: 0,
        pulled: Ok(None),
    });
    assert!(
        events[0].starts_with("Pulled Container image"),
        "{events:?}"
    );
    story.started("app");
    story.started("other");
    assert_eq!(story.machine.phase(), Phase::Running);
    // A restart has it, and says nothing of it.
    assert_eq!(story.exited("app", 1), ["pull app"]);
    let events = story.events(Input::Pulled {
        id: 0,
        run: 1,
        pulled: Ok(None),
    });
    assert_eq!(events, [] as [&str; 0]);
    story.started("app");
}

#[test]
fn the_image_of_a_volume_that_cannot_be_had_holds_up_who_mounts_it() {
    let mut story = with_image_volume();
    story.begin();
    let failure = PullFailure {
        reason: "ErrImagePull",
        message: "Failed to pull image \"r.example/data:1\": manifest unknown".to_owned(),
        of_volume: Some("r.example/data:1".to_owned()),
    };
    // What came of the pull is told as the pod's.
    let events = story.events(Input::Pulled {
        id: 0,
        run: 0,
        pulled: Err(failure),
    });
    assert_eq!(events[0], "Failed Error: ErrImagePull");
    assert_eq!(story.waits("app").0, "ErrImagePull");
    story.started("other");
    story.now.at = story.begin + S;
    assert_eq!(
        story.events(Input::Tick),
        [
            "BackOff Back-off pulling image \"r.example/data:1\"",
            "Failed Error: ImagePullBackOff",
        ]
    );
    assert_eq!(
        story.waits("app").1,
        "Back-off pulling image \"r.example/data:1\": ErrImagePull: Failed to pull image \"r.example/data:1\": manifest unknown"
    );
    assert_eq!(story.at(10 * S), ["pull app"]);
    assert_eq!(story.pull("app", Ok(None)), ["start app"]);
}
