//! The order of the stop, the grace period, and exit codes.

use super::*;

/// Two sidecars and two main containers, all running.
fn running(change: impl FnOnce(&mut PodPlan)) -> Story {
    let mut plan = plan(
        RestartPolicy::Always,
        vec![
            container("s1", Role::Sidecar),
            container("s2", Role::Sidecar),
            container("a", Role::Main),
            container("b", Role::Main),
        ],
    );
    change(&mut plan);
    let mut story = Story::new(&plan);
    story.begin();
    for name in ["s1", "s2", "a", "b"] {
        story.started(name);
    }
    story
}

#[test]
fn mains_at_once_then_sidecars_in_reverse() {
    let mut story = running(|_| {});
    assert_eq!(story.on(Input::Stop), ["TERM a", "TERM b"]);
    assert_eq!(story.exited("b", 0), NOTHING);
    assert_eq!(story.exited("a", 0), ["TERM s2"]);
    assert_eq!(story.exited("s2", 0), ["TERM s1"]);
    assert_eq!(story.exited("s1", 0), ["finished"]);
    assert_eq!(story.machine.exit_code(), 0);
    assert_eq!(story.machine.wake_at(), None);
}

#[test]
fn all_pre_stops_run_at_once_and_count_against_the_grace() {
    let hook = Some(Do::Exec(vec![]));
    let mut story = running(|plan| {
        plan.containers[0].pre_stop = hook.clone();
        plan.containers[2].pre_stop = hook.clone();
    });
    assert_eq!(
        story.on(Input::Stop),
        ["preStop s1 30s", "preStop a 30s", "TERM b"]
    );
    story.at(10 * S);
    assert_eq!(story.hook("a", false), ["TERM a"]);
    assert_eq!(story.hook("s1", false), NOTHING, "not its turn");
    assert_eq!(story.at(29 * S), NOTHING);
    // At the end of the grace the sidecars get a last, short chance.
    assert_eq!(story.at(30 * S), ["TERM s1", "TERM s2", "KILL a", "KILL b"]);
    assert_eq!(story.at(31 * S), NOTHING);
    assert_eq!(story.at(32 * S), ["KILL s1", "KILL s2"]);
}

#[test]
fn a_pre_stop_that_hangs_is_left_at_the_end_of_the_grace() {
    let mut story = running(|plan| plan.containers[2].pre_stop = Some(Do::Exec(vec![])));
    story.on(Input::Stop);
    story.exited("b", 0);
    assert_eq!(story.at(30 * S), ["TERM s1", "TERM s2", "TERM a"]);
    assert_eq!(story.hook("a", true), NOTHING, "too late to matter");
    assert_eq!(story.at(32 * S), ["KILL s1", "KILL s2", "KILL a"]);
}

#[test]
fn no_grace_means_no_pre_stop_and_the_minimum() {
    let mut story = running(|plan| {
        plan.grace = Duration::ZERO;
        plan.containers[2].pre_stop = Some(Do::Exec(vec![]));
    });
    assert_eq!(
        story.on(Input::Stop),
        ["TERM s1", "TERM s2", "TERM a", "TERM b"]
    );
    assert_eq!(story.wake(), Some(2 * S));
}

#[test]
fn a_second_stop_changes_nothing_and_kill_ends_it() {
    let mut story = running(|_| {});
    story.on(Input::Stop);
    assert_eq!(story.on(Input::Stop), NOTHING);
    assert_eq!(
        story.on(Input::Kill),
        ["KILL s1", "KILL s2", "KILL a", "KILL b"]
    );
    assert_eq!(story.on(Input::Kill), NOTHING);
    for name in ["s1", "s2", "a"] {
        assert_eq!(story.exited(name, 137), NOTHING);
    }
    assert_eq!(story.exited("b", 137), ["finished"]);
    assert_eq!(story.machine.exit_code(), 1);
}

#[test]
fn a_start_under_way_is_waited_for_unless_all_is_killed() {
    let plan = plan(
        RestartPolicy::Always,
        vec![container("s", Role::Sidecar), container("a", Role::Main)],
    );
    let mut story = Story::new(&plan);
    story.begin();
    story.started("s");
    assert_eq!(story.on(Input::Stop), NOTHING);
    assert_eq!(story.started("a"), ["TERM a"]);
    assert_eq!(story.exited("a", 0), ["TERM s"]);

    let mut story = Story::new(&plan);
    story.begin();
    assert_eq!(story.on(Input::Kill), ["finished"], "it may hang");
}

#[test]
fn a_stop_during_a_back_off_or_before_the_begin_ends_at_once() {
    let one = plan(RestartPolicy::Always, vec![container("a", Role::Main)]);
    let mut story = Story::new(&one);
    story.begin();
    story.started("a");
    story.exited("a", 1);
    story.started("a");
    story.exited("a", 5);
    assert_eq!(story.on(Input::Stop), ["finished"]);
    assert!(matches!(&story.status("a").state, State::Terminated(end) if end.code == 5));
    assert_eq!(Story::new(&one).on(Input::Stop), ["finished"]);
}

#[test]
fn a_restart_under_way_does_not_restart_and_keeps_the_earlier_deadline() {
    let mut story = running(|plan| plan.containers[2].liveness = probe(Some(5 * S)));
    assert_eq!(story.probed("a", Verdict::LivenessFailed), ["TERM a"]);
    assert_eq!(story.on(Input::Stop), ["TERM b"]);
    assert_eq!(story.at(5 * S), ["KILL a"]);
    assert_eq!(story.exited("a", 137), NOTHING);
    assert_eq!(story.exited("b", 0), ["TERM s2"]);
}

#[test]
fn eviction_fails_the_pod_without_grace() {
    let mut story = running(|_| {});
    let message = "Usage of EmptyDir volume \"x\" exceeds the limit \"1Mi\".".to_owned();
    assert_eq!(
        story.on(Input::Evict { message }),
        ["TERM s1", "TERM s2", "TERM a", "TERM b"]
    );
    assert_eq!(story.at(2 * S).len(), 4);
    for name in ["s1", "s2", "a", "b"] {
        story.exited(name, 137);
    }
    assert_eq!(story.machine.phase(), Phase::Failed);
    assert_eq!(story.machine.reason(), Some("Evicted"));
    assert_eq!(story.machine.exit_code(), 1);
}

#[test]
fn the_chosen_containers_end_stops_the_pod_with_its_code() {
    let plan = plan(
        RestartPolicy::Always,
        vec![container("s", Role::Sidecar), container("test", Role::Main)],
    );
    let mut story = Story::with(&plan, Some(1));
    story.begin();
    story.started("s");
    story.started("test");
    assert_eq!(story.exited("test", 42), ["TERM s"]);
    assert_eq!(story.exited("s", 0), ["finished"]);
    assert_eq!(story.machine.exit_code(), 42);
}

#[test]
fn an_end_that_the_runner_made_is_not_the_chosen_one() {
    let mut plan = plan(RestartPolicy::Always, vec![container("test", Role::Main)]);
    plan.containers[0].liveness = probe(None);
    let mut story = Story::with(&plan, Some(0));
    story.begin();
    story.started("test");
    story.probed("test", Verdict::LivenessFailed);
    assert_eq!(story.exited("test", 143), ["start test"]);
}

#[test]
fn a_failure_before_the_stop_is_not_forgotten() {
    let mut plan = plan(
        RestartPolicy::Never,
        vec![container("a", Role::Main), container("b", Role::Main)],
    );
    plan.grace = S;
    let mut story = Story::new(&plan);
    story.begin();
    story.started("a");
    story.started("b");
    story.exited("a", 1);
    story.on(Input::Stop);
    assert_eq!(story.exited("b", 0), ["finished"]);
    assert_eq!(story.machine.exit_code(), 1);
}

#[test]
fn the_events_show_the_order() {
    let mut story = running(|_| {});
    let killing = |name| format!("Killing Stopping container {name}");
    assert_eq!(story.events(Input::Stop), [killing("a"), killing("b")]);
    story.exited("b", 0);
    let (id, run) = story.id("a");
    let exit = exit(0);
    assert_eq!(
        story.events(Input::Exited { id, run, exit }),
        [killing("s2")]
    );
}

#[test]
fn a_pod_fails_when_it_was_active_for_too_long() {
    let mut story = running(|plan| plan.active_deadline = Some(60 * S));
    assert_eq!(story.wake(), Some(60 * S));
    assert_eq!(story.at(59 * S), NOTHING);
    story.now.at = story.begin + 60 * S;
    let message = "Pod was active on the node longer than the specified deadline";
    let events = story.events(Input::Tick);
    assert_eq!(events[0], format!("DeadlineExceeded {message}"));
    assert_eq!(story.machine.reason(), Some("DeadlineExceeded"));
    assert_eq!(story.machine.message(), Some(message));
    // With the pod's grace, as any stop.
    assert_eq!(story.wake(), Some(90 * S));
    for name in ["a", "b", "s2", "s1"] {
        story.exited(name, 0);
    }
    assert_eq!(story.machine.phase(), Phase::Failed);
    assert_eq!(story.machine.exit_code(), 1);
}

#[test]
fn the_deadline_counts_while_nothing_runs_yet() {
    let mut plan = plan(RestartPolicy::Always, vec![container("a", Role::Main)]);
    plan.active_deadline = Some(S);
    let mut story = Story::new(&plan);
    story.begin();
    assert_eq!(story.at(S), NOTHING);
    assert_eq!(story.started("a"), ["TERM a"]);
}
