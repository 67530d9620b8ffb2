//! Plans for the tests of this module.

use crate::plan::{ContainerPlan, ImageSource, PodPlan};

/// A main container of podkit's own image, with nothing but a name.
pub(super) fn container(name: &str) -> ContainerPlan {
    ContainerPlan {
        image: "podkit".to_owned(),
        command: vec![],
        args: vec![],
        env: vec![],
        mounts: vec![],
        ports: vec![],
        ..ContainerPlan::new(name, ImageSource::Itself)
    }
}

/// The pod `default/web`, which restarts always and has 30 s of grace.
pub(super) fn plan(containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        hostname: "web".to_owned(),
        volumes: vec![],
        ..PodPlan::new("web", containers)
    }
}
