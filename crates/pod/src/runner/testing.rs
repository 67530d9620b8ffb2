//! Plans for the tests of this module.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::{ContainerPlan, ImageSource, PodPlan, Resources, RestartPolicy, Role, Security};

/// A main container of podkit's own image, with nothing but a name.
pub(super) fn container(name: &str) -> ContainerPlan {
    ContainerPlan {
        name: name.to_owned(),
        role: Role::Main,
        image: "podkit".to_owned(),
        source: ImageSource::Itself,
        command: vec![],
        args: vec![],
        working_dir: None,
        env: vec![],
        mounts: vec![],
        ports: vec![],
        resources: Resources::default(),
        startup: None,
        readiness: None,
        liveness: None,
        post_start: None,
        pre_stop: None,
        security: Security::default(),
    }
}

/// The pod `default/web`, which restarts always and has 30 s of grace.
pub(super) fn plan(containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        hostname: "web".to_owned(),
        share_process_namespace: false,
        restart_policy: RestartPolicy::Always,
        grace: Duration::from_secs(30),
        volumes: vec![],
        containers,
    }
}
