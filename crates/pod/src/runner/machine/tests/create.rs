//! Containers that can't be made: the kubelet's reason, no restart, another try, and words that are said once.

use super::*;

const CONFIG: &str = "CreateContainerConfigError";
const WHY: &str = "container has runAsNonRoot and image will run as root";

impl Story {
    fn cannot_be_made(&self, name: &str, why: &str) -> Input {
        let (id, run) = self.id(name);
        let failure = StartFailure {
            waiting: Some(CONFIG),
            message: why.to_owned(),
        };
        Input::StartFailed { id, run, failure }
    }

    /// Every action that is shown to people: events, and changes of states.
    fn shown(&mut self, input: Input) -> Vec<String> {
        let actions = self.machine.on(self.now, input);
        let shown = |action| match action {
            Action::Event(event) if !event.again => {
                Some(format!("{} {}", event.reason, event.message))
            }
            Action::ContainerChanged { status, .. } => match status.state {
                State::Waiting { reason, .. } => Some(format!("= {reason}")),
                other => Some(format!("= {other:?}")),
            },
            _ => None,
        };
        actions.into_iter().filter_map(shown).collect()
    }
}

fn app(restart_policy: RestartPolicy) -> Story {
    let mut story = Story::new(&plan(restart_policy, vec![container("app", Role::Main)]));
    assert_eq!(story.begin(), ["start app"]);
    story
}

#[test]
fn it_waits_whatever_the_restart_policy_and_is_tried_again() {
    for policy in [
        RestartPolicy::Always,
        RestartPolicy::OnFailure,
        RestartPolicy::Never,
    ] {
        let mut story = app(policy);
        let mut clock = Duration::ZERO;
        for _ in 0..3 {
            let failed = story.cannot_be_made("app", WHY);
            // Created is not among them: it was not.
            assert_eq!(story.events(failed), [format!("Failed Error: {WHY}")]);
            assert_eq!(story.waits("app"), (CONFIG, WHY));
            assert_eq!(story.machine.phase(), Phase::Pending);
            clock += 10 * S;
            assert_eq!(story.wake(), Some(clock));
            assert_eq!(story.at(clock - S / 10), NOTHING);
            assert_eq!(story.at(clock), ["start app"]);
            assert_eq!(story.waits("app").0, CONFIG, "while it is tried");
        }
        story.started("app");
        assert_eq!(story.machine.phase(), Phase::Running);
        assert_eq!(story.status("app").restarts, 0);
    }
}

#[test]
fn the_same_words_are_said_once() {
    let mut story = app(RestartPolicy::Always);
    let failed = story.cannot_be_made("app", WHY);
    assert_eq!(
        story.shown(failed.clone()),
        [format!("= {CONFIG}"), format!("Failed Error: {WHY}")]
    );
    story.now.at += 10 * S;
    assert_eq!(story.shown(Input::Tick), NOTHING);
    assert_eq!(story.shown(failed), NOTHING);
    story.now.at += 10 * S;
    story.on(Input::Tick);
    let other = story.cannot_be_made("app", "another");
    assert_eq!(
        story.shown(other),
        [format!("= {CONFIG}"), "Failed Error: another".to_owned()]
    );
}

#[test]
fn one_that_has_run_waits_as_before_a_restart_and_counts_none() {
    let mut story = app(RestartPolicy::Always);
    story.started("app");
    assert_eq!(story.exited("app", 1), ["start app"]);
    story.started("app");
    // The second restart is 10 s after that end.
    assert_eq!(story.exited("app", 1), NOTHING);
    assert_eq!(story.at(10 * S), ["start app"]);
    let failed = story.cannot_be_made("app", WHY);
    assert_eq!(story.on(failed), NOTHING);
    assert_eq!(story.status("app").restarts, 1);
    assert_eq!(story.status("app").last.as_ref().unwrap().code, 1);
    // The back-off has gone on: 20 s after the end, then 40 s.
    assert_eq!(story.wake(), Some(20 * S));
    assert_eq!(story.at(20 * S), ["start app"]);
    let failed = story.cannot_be_made("app", WHY);
    assert_eq!(story.on(failed), NOTHING);
    assert_eq!(story.wake(), Some(40 * S));
    assert_eq!(story.at(40 * S), ["start app"]);
    story.started("app");
    assert_eq!(story.status("app").restarts, 2);
}

#[test]
fn it_holds_up_what_waits_for_it_and_nobody_else() {
    let mut story = Story::new(&plan(
        RestartPolicy::Never,
        vec![
            container("init", Role::Init),
            container("one", Role::Main),
            container("two", Role::Main),
        ],
    ));
    story.begin();
    let failed = story.cannot_be_made("init", WHY);
    assert_eq!(story.on(failed), NOTHING);
    assert_eq!(story.at(10 * S), ["start init"]);
    story.started("init");
    assert_eq!(story.exited("init", 0), ["start one", "start two"]);
    let failed = story.cannot_be_made("one", WHY);
    story.on(failed);
    story.started("two");
    assert_eq!(story.exited("two", 0), NOTHING, "the other is still to run");
    assert_eq!(story.at(20 * S), ["start one"]);
}

#[test]
fn a_stop_ends_the_wait_and_a_late_failure_is_the_end() {
    let mut story = app(RestartPolicy::Always);
    let failed = story.cannot_be_made("app", WHY);
    story.on(failed.clone());
    assert_eq!(story.on(Input::Stop), ["finished"]);
    let mut story = app(RestartPolicy::Always);
    assert_eq!(story.on(Input::Stop), NOTHING);
    assert_eq!(story.on(failed), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Failed);
}

#[test]
fn an_edit_tries_it_at_once() {
    let same = plan(RestartPolicy::Always, vec![container("app", Role::Main)]);
    let mut story = app(RestartPolicy::Always);
    let failed = story.cannot_be_made("app", WHY);
    story.on(failed);
    assert_eq!(story.replan(&same, &["app"], &[]), ["start app"]);
    // And while it is being tried: as soon as that has failed.
    assert_eq!(story.replan(&same, &["app"], &[]), NOTHING);
    let failed = story.cannot_be_made("app", WHY);
    assert_eq!(story.on(failed), ["start app"]);
}
