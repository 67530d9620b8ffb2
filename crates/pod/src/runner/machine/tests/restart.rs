//! Who starts again, and when.

use super::*;

fn app(policy: RestartPolicy) -> Story {
    let mut story = Story::new(&plan(policy, vec![container("app", Role::Main)]));
    story.begin();
    story.started("app");
    story
}

#[test]
fn the_kubelets_schedule() {
    let mut story = app(RestartPolicy::Always);
    assert_eq!(story.exited("app", 1), ["start app"], "the first at once");
    let mut clock = Duration::ZERO;
    for wait in [10, 20, 40, 80, 160, 300, 300] {
        story.started("app");
        assert_eq!(story.exited("app", 1), NOTHING);
        clock += wait * S;
        assert_eq!(story.wake(), Some(clock), "after {wait} s");
        assert_eq!(story.at(clock - S / 10), NOTHING);
        assert_eq!(story.at(clock), ["start app"]);
    }
    // Ten minutes of running and it starts over.
    story.started("app");
    assert_eq!(story.status("app").restarts, 8);
    story.at(clock + 600 * S + S);
    assert_eq!(story.exited("app", 1), ["start app"]);
    story.started("app");
    assert_eq!(story.exited("app", 1), NOTHING);
    assert_eq!(story.wake(), Some(clock + 611 * S));
}

#[test]
fn a_first_step_scales_the_whole_schedule() {
    let mut back_off = backoff::BackOff::new(S);
    let mut now = Instant::now();
    let mut waits = vec![];
    for _ in 0..8 {
        let wait = back_off.wait(now);
        waits.push(wait.as_secs());
        back_off.restarted(now, now + wait);
        now += wait;
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(back_off.wait(now + 61 * S), Duration::ZERO);
}

#[test]
fn crash_loop_is_shown_with_its_end_and_the_last_state() {
    let mut story = app(RestartPolicy::Always);
    story.exited("app", 1);
    story.started("app");
    let (id, run) = story.id("app");
    let events = story.events(Input::Exited {
        id,
        run,
        exit: exit(137),
    });
    // What a kubelet (1.20.2) was seen to say; later ones name container and pod in the event too.
    let pod = "web_default(00000000-0000-0000-0000-000000000000)";
    assert_eq!(
        events,
        [format!(
            "BackOff Back-off restarting failed container app in pod {pod}"
        )]
    );
    let status = story.status("app");
    let State::Waiting {
        reason,
        message,
        until,
    } = &status.state
    else {
        panic!("{status:?}")
    };
    assert_eq!(*reason, "CrashLoopBackOff");
    assert_eq!(
        *message,
        format!("back-off 10s restarting failed container=app pod={pod}")
    );
    assert_eq!(*until, Some(story.begin + 10 * S));
    let last = status.last.as_ref().unwrap();
    assert_eq!(
        (last.code, last.signal, last.reason),
        (137, Some(9), "Error")
    );
}

#[test]
fn on_failure_restarts_only_failures_and_success_ends_the_pod() {
    let mut story = app(RestartPolicy::OnFailure);
    assert_eq!(story.exited("app", 3), ["start app"]);
    story.started("app");
    assert_eq!(story.exited("app", 0), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Succeeded);
    assert_eq!(story.machine.exit_code(), 0);
}

#[test]
fn never_fails_the_pod_and_its_sidecars_are_stopped() {
    let containers = vec![
        container("one", Role::Sidecar),
        container("two", Role::Sidecar),
        container("app", Role::Main),
    ];
    let mut story = Story::new(&plan(RestartPolicy::Never, containers));
    story.begin();
    story.started("one");
    story.started("two");
    story.started("app");
    assert_eq!(story.exited("app", 7), ["TERM two"]);
    assert_eq!(story.exited("two", 0), ["TERM one"]);
    assert_eq!(story.exited("one", 0), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Failed);
    assert_eq!(story.machine.exit_code(), 1);
}

#[test]
fn sidecars_restart_under_never() {
    let containers = vec![
        container("proxy", Role::Sidecar),
        container("app", Role::Main),
    ];
    let mut story = Story::new(&plan(RestartPolicy::Never, containers));
    story.begin();
    story.started("proxy");
    story.started("app");
    assert_eq!(story.exited("proxy", 0), ["start proxy"]);
}

#[test]
fn an_init_container_that_fails_is_restarted_or_fails_the_pod() {
    let containers = || vec![container("init", Role::Init), container("app", Role::Main)];
    let mut story = Story::new(&plan(RestartPolicy::Always, containers()));
    story.begin();
    story.started("init");
    assert_eq!(story.exited("init", 1), ["start init"]);
    story.started("init");
    assert_eq!(story.exited("init", 0), ["start app"]);

    let mut story = Story::new(&plan(RestartPolicy::Never, containers()));
    story.begin();
    story.started("init");
    assert_eq!(story.exited("init", 1), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Failed);
    assert_eq!(story.machine.exit_code(), 1);
}

#[test]
fn a_failed_liveness_probe_ends_it_with_the_probes_grace() {
    let mut plan = plan(RestartPolicy::Always, vec![container("app", Role::Main)]);
    plan.containers[0].liveness = probe(Some(5 * S));
    plan.containers[0].pre_stop = Some(Do::Exec(vec![]));
    let mut story = Story::new(&plan);
    story.begin();
    story.started("app");
    assert_eq!(
        story.probed("app", Verdict::LivenessFailed),
        ["preStop app 5s"]
    );
    assert_eq!(story.hook("app", false), ["TERM app"]);
    assert_eq!(story.at(5 * S), ["KILL app"]);
    assert_eq!(story.exited("app", 137), ["start app"]);
}

#[test]
fn a_failed_startup_probe_says_so() {
    let mut plan = plan(RestartPolicy::Never, vec![container("app", Role::Main)]);
    plan.containers[0].startup = probe(None);
    let mut story = Story::new(&plan);
    story.begin();
    story.started("app");
    let verdict = Verdict::StartupFailed;
    assert_eq!(
        story.events(Input::Probed {
            id: 0,
            run: 0,
            verdict
        }),
        ["Killing Container app failed startup probe"]
    );
}

#[test]
fn a_program_that_cannot_be_started_counts_as_a_failed_run() {
    let mut story = Story::new(&plan(
        RestartPolicy::Always,
        vec![container("app", Role::Main)],
    ));
    story.begin();
    let fail = |run| Input::StartFailed {
        id: 0,
        run,
        failure: StartFailure {
            waiting: None,
            message: "exec /nope: no such file".to_owned(),
        },
    };
    assert_eq!(story.on(fail(0)), ["start app"]);
    assert_eq!(story.on(fail(1)), NOTHING);
    assert_eq!(story.wake(), Some(10 * S));
    let last = story.status("app").last.clone().unwrap();
    assert_eq!((last.code, last.reason), (128, "StartError"));
}

#[test]
fn out_of_memory_is_named_only_when_it_ended_the_run() {
    let oom = |code| Exit {
        code,
        signal: None,
        oom: true,
        message: String::new(),
    };
    assert_eq!(oom(137).reason(), "OOMKilled");
    assert_eq!(oom(0).reason(), "Completed");
}

#[test]
fn the_containers_own_policy_and_rules_come_before_the_pods() {
    let mut own = container("once", Role::Main);
    own.restart = Some(RestartPolicy::Never);
    own.restart_rules = vec![crate::plan::RestartRule {
        all: false,
        not_in: false,
        codes: vec![42],
    }];
    let mut story = Story::new(&plan(RestartPolicy::Always, vec![own]));
    story.begin();
    story.started("once");
    assert_eq!(story.exited("once", 42), ["start once"]);
    story.started("once");
    assert_eq!(story.exited("once", 0), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Succeeded);
}

/// An init container, a sidecar with the rule, and two main containers.
fn with_rule_for_88() -> Story {
    let mut watcher = container("watcher", Role::Sidecar);
    watcher.restart_rules = vec![crate::plan::RestartRule {
        all: true,
        not_in: false,
        codes: vec![88],
    }];
    let mut app = container("app", Role::Main);
    app.pre_stop = Some(Do::Exec(vec![]));
    let all = vec![
        container("init", Role::Init),
        watcher,
        app,
        container("other", Role::Main),
    ];
    let mut story = Story::new(&plan(RestartPolicy::Never, all));
    story.begin();
    story.started("init");
    story.exited("init", 0);
    story.started("watcher");
    story.started("app");
    story.started("other");
    story
}

#[test]
fn a_rule_restarts_all_containers_in_their_order() {
    let mut story = with_rule_for_88();
    assert_eq!(story.exited("other", 0), [""; 0]);
    assert_eq!(story.machine.restarts_all(), None);
    // No hook, no grace.
    assert_eq!(story.exited("watcher", 88), ["KILL app"]);
    assert_eq!(story.machine.phase(), Phase::Pending);
    assert_eq!(story.machine.restarts_all(), Some(true));
    assert_eq!(story.exited("app", 137), ["start init"]);
    assert_eq!(story.machine.restarts_all(), Some(false));
    assert!(!story.machine.initialized());
    story.started("init");
    assert_eq!(story.exited("init", 0), ["start watcher"]);
    assert_eq!(story.started("watcher"), ["start app", "start other"]);
    story.started("app");
    story.started("other");
    assert_eq!(story.machine.phase(), Phase::Running);
    for name in ["init", "watcher", "app", "other"] {
        let status = story.status(name);
        assert_eq!(status.restarts, 1, "{name}");
        assert!(status.last.is_some(), "{name}");
    }
    // The next time it waits, as it would alone.
    assert_eq!(story.exited("watcher", 88), ["KILL app", "KILL other"]);
    story.exited("app", 137);
    assert_eq!(story.exited("other", 137), [""; 0]);
    assert_eq!(story.wake(), Some(10 * S));
    assert_eq!(story.at(10 * S), ["start init"]);
    assert_eq!(story.wake(), None);
}

#[test]
fn an_edit_while_all_restart_waits_for_its_turn() {
    let mut rule = container("app", Role::Main);
    rule.restart_rules = vec![crate::plan::RestartRule {
        all: true,
        not_in: false,
        codes: vec![88],
    }];
    let all = |app: &ContainerPlan, other: ContainerPlan| {
        let all = vec![container("init", Role::Init), app.clone(), other];
        plan(RestartPolicy::Always, all)
    };
    let other = || container("other", Role::Main);
    let mut story = Story::new(&all(&rule, other()));
    story.begin();
    story.started("init");
    story.exited("init", 0);
    story.started("app");
    story.started("other");
    assert_eq!(story.exited("app", 88), ["KILL other"]);
    // Of one that ends just now, and of one that has ended.
    let mut edited = other();
    edited.args.push("x".to_owned());
    assert_eq!(
        story.replan(&all(&rule, edited.clone()), &["other"], &[]),
        [""; 0]
    );
    rule.args.push("x".to_owned());
    let changed = all(&rule, edited);
    assert_eq!(story.replan(&changed, &["app"], &[]), [""; 0]);
    assert_eq!(story.exited("other", 137), ["start init"]);
    story.started("init");
    assert_eq!(story.exited("init", 0), ["start app", "start other"]);
    assert_eq!(story.started("app"), [""; 0]);
    assert_eq!(story.started("other"), [""; 0], "it is what it should be");
    // The second time there is a wait, in which none runs: that is no end of the pod.
    assert_eq!(story.exited("app", 88), ["KILL other"]);
    assert_eq!(story.exited("other", 137), [""; 0]);
    assert_eq!(story.replan(&changed, &["app"], &[]), [""; 0]);
    assert!(!story.machine.stopping());
    let begins = story.wake().unwrap();
    assert_eq!(story.at(begins), ["start init"]);
}

#[test]
fn another_code_is_the_end_of_one_container_only() {
    let mut story = with_rule_for_88();
    assert_eq!(story.exited("watcher", 1), ["start watcher"]);
    story.exited("app", 0);
    assert_eq!(story.exited("other", 0), [""; 0]);
    assert!(story.machine.stopping());
}

#[test]
fn a_start_under_way_is_waited_for_when_all_restart() {
    let mut plan = plan(
        RestartPolicy::Never,
        vec![container("a", Role::Main), container("b", Role::Main)],
    );
    plan.containers[0].restart_rules = vec![crate::plan::RestartRule {
        all: true,
        not_in: true,
        codes: vec![0],
    }];
    let mut story = Story::new(&plan);
    story.begin();
    story.started("a");
    assert_eq!(story.exited("a", 3), [""; 0]);
    assert_eq!(story.started("b"), ["KILL b"]);
    assert_eq!(story.exited("b", 137), ["start a", "start b"]);
    // And a stop ends it all, whatever was to come.
    story.started("a");
    assert_eq!(story.exited("a", 3), [""; 0]);
    story.on(Input::Stop);
    story.started("b");
    assert_eq!(story.exited("b", 143), ["finished"]);
}

#[test]
fn a_termination_message_stays_with_the_end() {
    let mut story = app(RestartPolicy::Never);
    let exit = Exit {
        message: "no disk".to_owned(),
        ..exit(1)
    };
    let (id, run) = story.id("app");
    story.on(Input::Exited { id, run, exit });
    let State::Terminated(end) = &story.status("app").state else {
        panic!()
    };
    assert_eq!(end.line(), "Error (exit code 1): no disk");
}
