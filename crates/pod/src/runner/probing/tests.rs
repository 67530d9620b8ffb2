use super::*;

const MS: Duration = Duration::from_millis(1);

fn probe(initial_delay: Duration, failure_threshold: u32) -> Option<ProbePlan> {
    Some(ProbePlan {
        action: Action::Tcp {
            host: None,
            port: 80,
        },
        initial_delay,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold,
        grace: None,
    })
}

fn container() -> ContainerPlan {
    crate::runner::testing::container("app")
}

/// Which, when (in ms), and whether it was told.
type Look = (ProbeKind, u64, bool);

/// Looks at once whenever something is due, until `end`: what was looked at, and when, in ms.
fn looks(
    container: &ContainerPlan,
    end: u64,
    well: impl Fn(ProbeKind, u64) -> bool,
) -> (Vec<Look>, Vec<(u64, Change)>) {
    let since = Instant::now();
    let mut schedule = Schedule::new(container, since);
    let (mut looks, mut changes) = (vec![], vec![]);
    let mut now = since;
    loop {
        while let Some(kind) = schedule.take_due(now) {
            let at = (now - since).as_millis() as u64;
            let outcome = match well(kind, at) {
                true => Outcome::Success,
                false => Outcome::Failure("no".to_owned()),
            };
            let (told, change) = schedule.record(kind, &outcome, now);
            looks.push((kind, at, told));
            changes.extend(change.map(|change| (at, change)));
        }
        let Some(wake) = schedule.wake_at() else {
            break;
        };
        if wake > since + Duration::from_millis(end) {
            break;
        }
        now = wake;
    }
    (looks, changes)
}

#[test]
fn a_success_is_noticed_soon_and_failures_only_at_the_period() {
    let mut app = container();
    app.readiness = probe(Duration::ZERO, 3);
    let (seen, changes) = looks(&app, 30_000, |_, at| at >= 3000);
    let told: Vec<u64> = seen
        .iter()
        .filter(|(_, at, told)| *told && *at < 3000)
        .map(|l| l.1)
        .collect();
    assert_eq!(
        told,
        [1000],
        "one failure was told, when the kubelet would look"
    );
    let tries: Vec<u64> = seen.iter().map(|l| l.1).take(8).collect();
    assert_eq!(tries, [0, 2, 5, 9, 16, 26, 41, 64]);
    let [(at, Change::Ready(true))] = changes[..] else {
        panic!("{changes:?}")
    };
    assert!((3000..4001).contains(&at), "{at}");
    // From then on at the period.
    let after: Vec<u64> = seen
        .iter()
        .map(|l| l.1 - at.min(l.1))
        .filter(|a| *a > 0)
        .collect();
    assert_eq!(after, [10_000, 20_000]);
}

#[test]
fn what_is_up_at_once_is_ready_at_once_and_fails_at_its_period() {
    let mut app = container();
    app.readiness = probe(Duration::ZERO, 1);
    let (_, changes) = looks(&app, 40_000, |_, at| at < 15_000);
    assert_eq!(
        changes,
        [(0, Change::Ready(true)), (20_000, Change::Ready(false))]
    );
}

#[test]
fn liveness_never_fails_in_the_first_moment_and_is_not_tried() {
    let mut app = container();
    app.liveness = probe(Duration::ZERO, 1);
    let (seen, changes) = looks(&app, 5000, |_, at| at >= 900);
    assert_eq!(seen, [(ProbeKind::Liveness, 1000, true)]);
    assert!(changes.is_empty());
}

#[test]
fn the_initial_delay_holds_for_tries_too() {
    let mut app = container();
    app.readiness = probe(Duration::from_secs(4), 1);
    let (seen, changes) = looks(&app, 9000, |_, _| true);
    assert_eq!(seen, [(ProbeKind::Readiness, 4000, true)]);
    assert_eq!(changes, [(4000, Change::Ready(true))]);
}

#[test]
fn commands_are_tried_less_often() {
    let mut app = container();
    app.readiness = probe(Duration::ZERO, 3);
    app.readiness.as_mut().unwrap().action = Action::Exec(vec!["true".to_owned()]);
    let (seen, _) = looks(&app, 900, |_, _| false);
    let tries: Vec<u64> = seen.iter().map(|l| l.1).collect();
    assert_eq!(tries, [0, 20, 50, 95, 162, 263, 415, 643]);
}

#[test]
fn startup_gates_and_then_readiness_is_tried() {
    let mut app = container();
    app.startup = probe(Duration::ZERO, 30);
    app.readiness = probe(Duration::ZERO, 3);
    let (seen, changes) = looks(&app, 5000, |kind, at| match kind {
        ProbeKind::Startup => at >= 100,
        _ => at >= 200,
    });
    let [(up, Change::Started), (ready, Change::Ready(true))] = changes[..] else {
        panic!("{changes:?}")
    };
    assert!((100..151).contains(&up), "{up}");
    assert!((200..251).contains(&ready), "{ready}");
    assert!(seen.iter().all(|l| l.0 == ProbeKind::Startup || l.1 >= up));
}

#[test]
fn a_startup_probe_fails_no_earlier_than_its_numbers_say() {
    let mut app = container();
    app.startup = probe(Duration::ZERO, 3);
    let (_, changes) = looks(&app, 60_000, |_, _| false);
    let [(at, Change::Restart { kind, .. })] = changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((at, kind), (21_000, ProbeKind::Startup));
}

#[test]
fn a_try_that_is_under_way_when_the_attempt_is_due_is_the_attempt() {
    let mut app = container();
    app.readiness = probe(Duration::ZERO, 1);
    let since = Instant::now();
    let mut schedule = Schedule::new(&app, since);
    assert_eq!(schedule.take_due(since), Some(ProbeKind::Readiness));
    assert_eq!(schedule.take_due(since + 1000 * MS), None, "one at a time");
    let failed = Outcome::Failure("slow".to_owned());
    let (told, change) = schedule.record(ProbeKind::Readiness, &failed, since + 1100 * MS);
    assert!(told);
    assert_eq!(change, None, "it was not ready before either");
}
