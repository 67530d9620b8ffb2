//! Another plan while the pod runs.

use super::*;

fn edited(mut container: ContainerPlan, arg: &str) -> ContainerPlan {
    container.args.push(arg.to_owned());
    container
}

fn with_image(mut container: ContainerPlan, image: &str) -> ContainerPlan {
    let reference = image.parse().unwrap();
    container.image = image.to_owned();
    container.source = ImageSource::Image(crate::image::Location::Registry(reference));
    container
}

impl Story {
    /// Puts another plan in force; answers what is done.
    pub(super) fn replan(
        &mut self,
        plan: &PodPlan,
        changed: &[&str],
        removed: &[&str],
    ) -> Vec<String> {
        let input = self.edit(plan, changed, removed);
        self.on(input)
    }

    fn edit(&mut self, plan: &PodPlan, changed: &[&str], removed: &[&str]) -> Input {
        self.names = plan.containers.iter().map(|c| c.name.clone()).collect();
        let ids = |names: &[&str]| {
            let at = |name: &&str| self.names.iter().position(|n| n == name).unwrap();
            names.iter().map(at).collect::<Vec<Id>>()
        };
        Input::Replan(Box::new(Replan {
            plan: Arc::new(plan.clone()),
            changed: ids(changed),
            removed: ids(removed),
        }))
    }

    fn pulled(&mut self, name: &str, run: u32, good: bool) -> Vec<String> {
        let id = self.id(name).0;
        let pulled = match good {
            true => Ok(Some(Pulled {
                image_id: String::new(),
                took: None,
                size_bytes: 0,
            })),
            false => Err(PullFailure {
                reason: "ErrImagePull",
                message: "no".to_owned(),
                of_volume: None,
            }),
        };
        self.on(Input::Pulled { id, run, pulled })
    }
}

fn always(containers: Vec<ContainerPlan>) -> PodPlan {
    plan(RestartPolicy::Always, containers)
}

fn main(name: &str) -> ContainerPlan {
    container(name, Role::Main)
}

/// A pod of two main containers that run.
fn two() -> Story {
    let mut story = Story::new(&always(vec![main("a"), main("b")]));
    assert_eq!(story.begin(), ["start a", "start b"]);
    story.started("a");
    story.started("b");
    story
}

#[test]
fn only_what_changed_is_restarted() {
    let mut story = two();
    let plan = always(vec![main("a"), edited(main("b"), "x")]);
    let edit = story.edit(&plan, &["b"], &[]);
    assert_eq!(
        story.events(edit),
        ["Killing Container b definition changed, will be restarted"]
    );
    assert!(!story.machine.ready());
    // At once, whatever the back-off, and however it ended.
    assert_eq!(story.exited("b", 1), ["start b"]);
    assert!(story.status("b").last.is_some());
    assert_eq!(story.started("b"), NOTHING);
    assert_eq!(story.status("b").restarts, 1);
    assert!(story.machine.ready());
    assert_eq!(story.status("a").restarts, 0);
}

#[test]
fn an_edit_that_changes_no_container_disturbs_none() {
    let mut story = two();
    let mut plan = always(vec![main("a"), main("b")]);
    plan.grace = 7 * S;
    assert_eq!(story.replan(&plan, &[], &[]), NOTHING);
    assert!(story.machine.ready());
    // But its own fields are in force.
    assert_eq!(story.on(Input::Stop), ["TERM a", "TERM b"]);
    assert_eq!(story.wake(), Some(7 * S));
}

#[test]
fn the_next_image_is_there_before_the_present_run_ends() {
    let mut story = two();
    let plan = always(vec![main("a"), with_image(main("b"), "r.example/b:2")]);
    assert_eq!(story.replan(&plan, &["b"], &[]), ["pull b"]);
    assert!(story.machine.ready());
    // An image that can't be had costs nothing, and is asked for again.
    assert_eq!(story.pulled("b", 1, false), NOTHING);
    assert!(story.machine.ready());
    assert_eq!(story.wake(), Some(10 * S));
    assert_eq!(story.at(10 * S), ["pull b"]);
    // A stray answer about the present run is none.
    assert_eq!(story.pulled("b", 0, true), NOTHING);
    assert_eq!(story.pulled("b", 1, true), ["TERM b"]);
    assert_eq!(story.exited("b", 0), ["pull b"]);
    assert_eq!(story.pulled("b", 1, true), ["start b"]);
}

#[test]
fn who_ends_while_its_next_image_is_pulled_begins_as_what_it_is_to_be() {
    let mut story = two();
    let plan = always(vec![main("a"), with_image(main("b"), "r.example/b:2")]);
    assert_eq!(story.replan(&plan, &["b"], &[]), ["pull b"]);
    assert_eq!(story.exited("b", 1), ["pull b"]);
    assert_eq!(story.pulled("b", 1, true), ["start b"]);
    assert_eq!(story.started("b"), NOTHING);
    assert!(story.machine.ready());
}

#[test]
fn a_start_under_way_is_ended_when_it_is_there() {
    let mut story = Story::new(&always(vec![main("a")]));
    assert_eq!(story.begin(), ["start a"]);
    let plan = always(vec![edited(main("a"), "x")]);
    assert_eq!(story.replan(&plan, &["a"], &[]), NOTHING);
    assert_eq!(story.started("a"), ["TERM a"]);
    assert_eq!(story.exited("a", 0), ["start a"]);
}

#[test]
fn one_that_waits_to_be_restarted_waits_no_more() {
    let mut story = two();
    assert_eq!(story.exited("b", 1), ["start b"]);
    story.started("b");
    assert_eq!(story.exited("b", 1), NOTHING);
    assert_eq!(story.wake(), Some(10 * S));
    let plan = always(vec![main("a"), edited(main("b"), "x")]);
    assert_eq!(story.replan(&plan, &["b"], &[]), ["start b"]);
    story.started("b");
    // Its failures were those of what it was.
    assert_eq!(story.exited("b", 1), ["start b"]);
}

#[test]
fn one_that_is_new_begins_and_one_that_is_gone_ends() {
    let mut story = two();
    let plan = always(vec![main("a"), main("b"), main("c")]);
    assert_eq!(story.replan(&plan, &[], &["b"]), ["TERM b", "start c"]);
    assert!(!story.machine.ready());
    assert_eq!(story.exited("b", 1), NOTHING);
    story.started("c");
    assert!(story.machine.ready());
    assert!(story.machine.is_removed(1));
    // It takes no part in the pod's end.
    assert_eq!(story.on(Input::Stop), ["TERM a", "TERM c"]);
    story.exited("a", 0);
    assert_eq!(story.exited("c", 0), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Succeeded);
}

#[test]
fn one_that_comes_back_while_it_ends_begins_again() {
    let mut story = two();
    let plan = always(vec![main("a"), main("b")]);
    assert_eq!(story.replan(&plan, &[], &["b"]), ["TERM b"]);
    assert_eq!(story.replan(&plan, &["b"], &[]), NOTHING);
    assert_eq!(story.exited("b", 0), ["start b"]);
    assert!(!story.machine.is_removed(1));
}

#[test]
fn a_sidecar_is_restarted_beside_the_application() {
    let sidecar = || container("s", Role::Sidecar);
    let mut story = Story::new(&always(vec![sidecar(), main("a")]));
    assert_eq!(story.begin(), ["start s"]);
    assert_eq!(story.started("s"), ["start a"]);
    story.started("a");
    let plan = always(vec![edited(sidecar(), "x"), main("a")]);
    // Its turn to end does not wait for the application's.
    assert_eq!(story.replan(&plan, &["s"], &[]), ["TERM s"]);
    assert_eq!(story.exited("s", 0), ["start s"]);
    assert_eq!(story.status("a").restarts, 0);
}

#[test]
fn a_pod_whose_last_container_that_ran_is_gone_has_ended() {
    let mut story = Story::new(&plan(RestartPolicy::Never, vec![main("a"), main("b")]));
    story.begin();
    story.started("a");
    story.started("b");
    story.exited("a", 0);
    let plan = plan(RestartPolicy::Never, vec![main("a"), main("b")]);
    assert_eq!(story.replan(&plan, &[], &["b"]), ["TERM b"]);
    assert_eq!(story.exited("b", 143), ["finished"]);
    assert_eq!(story.machine.phase(), Phase::Succeeded);
    assert_eq!(story.machine.exit_code(), 0);
}

#[test]
fn what_stops_is_not_changed() {
    let mut story = two();
    assert_eq!(story.on(Input::Stop), ["TERM a", "TERM b"]);
    let plan = always(vec![edited(main("a"), "x"), main("b")]);
    assert_eq!(story.replan(&plan, &["a"], &[]), NOTHING);
    assert_eq!(story.exited("a", 0), NOTHING);
    assert_eq!(story.exited("b", 0), ["finished"]);
}
