use std::time::Instant;

use crate::plan::{ContainerPlan, ImageSource, ProbePlan};
use crate::probe::*;

fn probe(numbers: [u64; 2], thresholds: [u32; 2]) -> Option<ProbePlan> {
    Some(ProbePlan {
        action: Action::Exec(vec!["true".into()]),
        initial_delay: Duration::from_secs(numbers[0]),
        period: Duration::from_secs(numbers[1]),
        timeout: Duration::from_secs(1),
        success_threshold: thresholds[0],
        failure_threshold: thresholds[1],
        grace: None,
    })
}

fn container(
    startup: Option<ProbePlan>,
    readiness: Option<ProbePlan>,
    liveness: Option<ProbePlan>,
) -> ContainerPlan {
    ContainerPlan {
        startup,
        readiness,
        liveness,
        ..ContainerPlan::new("app", ImageSource::Host)
    }
}

fn bad() -> Outcome {
    Outcome::Failure("no".into())
}

/// Runs the machine for `until` seconds; `look` says what an attempt at a second comes to. Each attempt and change is a
/// word: `10r` a readiness attempt at 10 s, `!ready` and so on what it changed.
fn run(
    container: &ContainerPlan,
    until: u64,
    mut look: impl FnMut(ProbeKind, u64) -> Outcome,
) -> (String, ProbeState) {
    let start = Instant::now();
    let mut state = ProbeState::new(container, start);
    let mut log = Vec::new();
    while let Some(at) = state.wake_at() {
        let second = (at - start).as_secs();
        if second > until {
            break;
        }
        while let Some(kind) = state.take_due(at) {
            let letter = kind.to_string().to_lowercase().remove(0);
            log.push(format!("{second}{letter}"));
            match state.record(kind, &look(kind, second), at) {
                None => {}
                Some(Change::Started) => log.push("!started".into()),
                Some(Change::Ready(true)) => log.push("!ready".into()),
                Some(Change::Ready(false)) => log.push("!unready".into()),
                Some(Change::Restart { kind, .. }) => log.push(format!("!restart({kind})")),
            }
        }
    }
    (log.join(" "), state)
}

#[test]
fn probes_run_and_count_as_the_kubelet_s() {
    let ok = |_: ProbeKind, _: u64| Outcome::Success;
    // At once after the initial delay, then at the period.
    let readiness = container(None, probe([0, 10], [1, 3]), None);
    assert_eq!(run(&readiness, 20, ok).0, "0r !ready 10r 20r");
    let delayed = container(None, probe([5, 10], [1, 3]), None);
    assert_eq!(run(&delayed, 20, ok).0, "5r !ready 15r");
    // Three failures in a row make it unready; one success in between starts the count anew.
    let flaky = |_: ProbeKind, at: u64| match at {
        0 | 30 | 60.. => Outcome::Success,
        _ => bad(),
    };
    assert_eq!(
        run(&readiness, 70, flaky).0,
        "0r !ready 10r 20r 30r 40r 50r 60r 70r"
    );
    let down = |_: ProbeKind, at: u64| {
        if (10..50).contains(&at) {
            bad()
        } else {
            Outcome::Success
        }
    };
    assert_eq!(
        run(&readiness, 60, down).0,
        "0r !ready 10r 20r 30r !unready 40r 50r !ready 60r"
    );
    // successThreshold counts in a row as well; until then it is not ready.
    let twice = container(None, probe([0, 1], [2, 1]), None);
    let wobbly = |_: ProbeKind, at: u64| if at == 1 { bad() } else { Outcome::Success };
    assert_eq!(run(&twice, 4, wobbly).0, "0r 1r 2r 3r !ready 4r");
    // What could not be looked at does not count, and does not break a row.
    let unknown = |_: ProbeKind, at: u64| match at {
        0 => Outcome::Success,
        20 => Outcome::Unknown("?".into()),
        _ => bad(),
    };
    assert_eq!(
        run(&readiness, 40, unknown).0,
        "0r !ready 10r 20r 30r 40r !unready"
    );
    // A warning is a success.
    let warned = |_: ProbeKind, _: u64| Outcome::Warning("elsewhere".into());
    assert_eq!(run(&readiness, 0, warned).0, "0r !ready");
}

#[test]
fn liveness_restarts_once_and_startup_gates() {
    let live = container(None, None, probe([0, 10], [1, 3]));
    let (log, state) = run(&live, 100, |_, _| bad());
    // Once per threshold: then the run is over, however long the stop takes.
    assert_eq!(log, "0l 10l 20l !restart(Liveness)");
    // Liveness begins as alive, and does not make ready or unready.
    assert!(state.ready() && state.started());
    assert!(ProbeState::new(&live, Instant::now()).ready());

    let all = container(
        probe([0, 10], [1, 3]),
        probe([0, 5], [1, 1]),
        probe([12, 5], [1, 1]),
    );
    let fresh = ProbeState::new(&all, Instant::now());
    assert!(!fresh.started() && !fresh.ready());
    // The others wait for the startup probe, then run at once, or when their own delay from the start is over.
    let slow = |kind: ProbeKind, at: u64| match kind {
        ProbeKind::Startup if at < 10 => bad(),
        _ => Outcome::Success,
    };
    let (log, state) = run(&all, 18, slow);
    assert_eq!(log, "0s 10s !started 10r !ready 12l 15r 17l");
    assert!(state.ready());
    // It never starts: restarted for that, nothing else was looked at.
    let (log, state) = run(&all, 100, |_, _| bad());
    assert_eq!(log, "0s 10s 20s !restart(Startup)");
    assert!(!state.started() && !state.ready());
    // Without a readiness probe it is ready when it has started.
    let started = container(probe([0, 1], [1, 1]), None, None);
    let (log, state) = run(&started, 10, |_, _| Outcome::Success);
    assert_eq!(log, "0s !started");
    assert!(state.ready());
}

#[test]
fn a_restart_carries_the_probe_s_own_grace() {
    let mut plan = container(None, None, probe([0, 10], [1, 1]));
    let grace = Some(Duration::from_secs(7));
    plan.liveness.as_mut().unwrap().grace = grace;
    let now = Instant::now();
    let mut state = ProbeState::new(&plan, now);
    assert_eq!(state.take_due(now), Some(ProbeKind::Liveness));
    let change = state.record(ProbeKind::Liveness, &bad(), now);
    let kind = ProbeKind::Liveness;
    assert_eq!(change, Some(Change::Restart { kind, grace }));
}

#[test]
fn attempts_of_one_probe_never_overlap() {
    let plan = container(None, probe([0, 10], [1, 3]), None);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut state = ProbeState::new(&plan, start);
    assert_eq!(state.take_due(start), Some(ProbeKind::Readiness));
    // Under way: nothing to wake for, however late it is.
    assert_eq!(state.wake_at(), None);
    assert_eq!(state.take_due(at(30)), None);
    // It took 4 s: the next is at the period. It took 25 s: the next is now.
    state.record(ProbeKind::Readiness, &Outcome::Success, at(4));
    assert_eq!(state.wake_at(), Some(at(10)));
    assert_eq!(state.take_due(at(10)), Some(ProbeKind::Readiness));
    state.record(ProbeKind::Readiness, &Outcome::Success, at(35));
    assert_eq!(state.wake_at(), Some(at(35)));
}

#[test]
fn a_container_that_is_stopping_is_not_restarted_for_its_probes() {
    let plan = container(None, probe([0, 1], [1, 1]), probe([0, 1], [1, 1]));
    let now = Instant::now();
    let mut state = ProbeState::new(&plan, now);
    assert_eq!(state.take_due(now), Some(ProbeKind::Readiness));
    assert_eq!(state.take_due(now), Some(ProbeKind::Liveness));
    state.stop();
    // One that was under way comes too late to matter; readiness still tells.
    assert_eq!(state.record(ProbeKind::Liveness, &bad(), now), None);
    let ready = state.record(ProbeKind::Readiness, &Outcome::Success, now);
    assert_eq!(ready, Some(Change::Ready(true)));
    let later = now + Duration::from_secs(5);
    assert_eq!(state.take_due(later), Some(ProbeKind::Readiness));
    assert_eq!(state.take_due(later), None);
}

#[test]
fn events_are_in_kubectl_s_words() {
    let event = |outcome: Outcome, kind| outcome.event(kind);
    assert_eq!(event(Outcome::Success, ProbeKind::Liveness), None);
    assert_eq!(
        event(
            Outcome::Failure("HTTP probe failed with statuscode: 500".into()),
            ProbeKind::Readiness
        )
        .unwrap(),
        "Readiness probe failed: HTTP probe failed with statuscode: 500"
    );
    assert_eq!(
        event(Outcome::Unknown("x".into()), ProbeKind::Startup).unwrap(),
        "Startup probe errored and resulted in unknown state: x"
    );
    assert_eq!(
        event(Outcome::Warning("x".into()), ProbeKind::Liveness).unwrap(),
        "Liveness probe warning: x"
    );
}
