//! The order of the start, and what holds it up.

use super::*;

fn init(name: &str) -> ContainerPlan {
    container(name, Role::Init)
}
fn sidecar(name: &str) -> ContainerPlan {
    container(name, Role::Sidecar)
}
fn main(name: &str) -> ContainerPlan {
    container(name, Role::Main)
}

#[test]
fn inits_one_after_another_then_all_mains() {
    let containers = vec![init("a"), init("b"), main("c"), main("d")];
    let mut story = Story::new(&plan(RestartPolicy::Always, containers));
    assert_eq!(story.begin(), ["start a"]);
    assert_eq!(story.started("a"), NOTHING);
    assert!(!story.machine.initialized());
    assert_eq!(story.exited("a", 0), ["start b"]);
    assert_eq!(story.started("b"), NOTHING);
    assert_eq!(story.machine.phase(), Phase::Pending);
    assert_eq!(story.exited("b", 0), ["start c", "start d"]);
    assert!(story.machine.initialized());
    assert_eq!(story.started("d"), NOTHING);
    assert_eq!(story.machine.phase(), Phase::Running);
    assert!(!story.machine.ready());
    assert_eq!(story.started("c"), NOTHING);
    assert!(story.machine.ready());
}

#[test]
fn a_sidecar_takes_its_place_and_its_startup_probe_gates_the_next() {
    let mut proxy = sidecar("proxy");
    proxy.startup = probe(None);
    let containers = vec![proxy, init("migrate"), main("app")];
    let mut story = Story::new(&plan(RestartPolicy::Always, containers));
    assert_eq!(story.begin(), ["start proxy"]);
    assert_eq!(story.started("proxy"), ["probe proxy"]);
    assert_eq!(
        story.probed("proxy", Verdict::StartupPassed),
        ["start migrate"]
    );
    assert_eq!(story.started("migrate"), NOTHING);
    // A sidecar that was passed restarts beside the others and holds nothing up.
    assert_eq!(story.exited("proxy", 1), ["start proxy"]);
    assert_eq!(story.exited("migrate", 0), ["start app"]);
}

#[test]
fn a_sidecar_that_ends_before_it_started_is_waited_for() {
    let mut proxy = sidecar("proxy");
    proxy.startup = probe(None);
    let mut story = Story::new(&plan(RestartPolicy::Never, vec![proxy, main("app")]));
    story.begin();
    story.started("proxy");
    assert_eq!(story.exited("proxy", 1), ["start proxy"]);
    story.started("proxy");
    assert_eq!(story.probed("proxy", Verdict::StartupPassed), ["start app"]);
}

#[test]
fn post_start_holds_up_the_next_main_container_and_the_probes() {
    let mut first = main("first");
    first.post_start = Some(Do::Exec(vec![]));
    first.readiness = probe(None);
    let containers = vec![first, main("second")];
    let mut story = Story::new(&plan(RestartPolicy::Always, containers));
    assert_eq!(story.begin(), ["start first"]);
    assert_eq!(story.started("first"), ["postStart first"]);
    assert!(!story.status("first").started);
    assert_eq!(story.hook("first", false), ["probe first", "start second"]);
}

#[test]
fn a_failed_post_start_ends_the_container_and_lets_the_next_begin() {
    let mut first = main("first");
    first.post_start = Some(Do::Exec(vec![]));
    let containers = vec![first, main("second")];
    let mut story = Story::new(&plan(RestartPolicy::Always, containers));
    story.begin();
    story.started("first");
    assert_eq!(story.hook("first", true), ["TERM first", "start second"]);
    assert_eq!(story.exited("first", 143), ["start first"]);
    story.started("first");
    assert_eq!(story.hook("first", true), ["TERM first"]);
    assert_eq!(story.exited("first", 143), NOTHING);
    assert_eq!(story.wake(), Some(10 * S));
}

#[test]
fn readiness_governs_ready_and_startup_comes_first() {
    let mut app = main("app");
    app.startup = probe(None);
    app.readiness = probe(None);
    app.liveness = probe(None);
    let mut story = Story::new(&plan(RestartPolicy::Always, vec![app]));
    story.begin();
    assert_eq!(story.started("app"), ["probe app"]);
    assert!(!story.status("app").started);
    assert_eq!(story.probed("app", Verdict::StartupPassed), NOTHING);
    assert!(story.status("app").started && !story.status("app").ready);
    story.probed("app", Verdict::Ready(true));
    assert!(story.machine.ready());
    story.probed("app", Verdict::Ready(false));
    assert!(!story.machine.ready());
}

#[test]
fn a_sidecar_that_is_not_ready_keeps_the_pod_from_being_ready() {
    let mut proxy = sidecar("proxy");
    proxy.readiness = probe(None);
    let mut story = Story::new(&plan(RestartPolicy::Always, vec![proxy, main("app")]));
    story.begin();
    story.started("proxy");
    story.started("app");
    assert!(story.status("app").ready && !story.machine.ready());
    story.probed("proxy", Verdict::Ready(true));
    assert!(story.machine.ready());
}

#[test]
fn events_in_kubectls_words() {
    let mut story = Story::new(&plan(RestartPolicy::Always, vec![main("app")]));
    assert_eq!(
        story.events(Input::Begin),
        ["Pulled Container image \"podkit\" already present on machine: this program"]
    );
    assert_eq!(
        story.events(Input::Started { id: 0, run: 0 }),
        [
            "Created Created container app",
            "Started Started container app"
        ]
    );
}

#[test]
fn what_arrives_late_about_an_earlier_run_is_nothing() {
    let mut app = main("app");
    app.liveness = probe(None);
    let mut story = Story::new(&plan(RestartPolicy::Always, vec![app]));
    story.begin();
    story.started("app");
    assert_eq!(story.exited("app", 1), ["start app"]);
    story.started("app");
    let (id, run) = (0, 0);
    let verdict = Verdict::LivenessFailed;
    assert_eq!(story.on(Input::Probed { id, run, verdict }), NOTHING);
    let exit = exit(0);
    assert_eq!(story.on(Input::Exited { id, run, exit }), NOTHING);
    assert!(matches!(story.status("app").state, State::Running { .. }));
}
