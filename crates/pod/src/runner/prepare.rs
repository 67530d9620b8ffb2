//! From the command line to a pod that is ready to begin: read, check, claim, plan, and make what the containers stand on.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::error::Failure;
use tokio::task::LocalSet;

use super::RunOptions;
use super::container::Ground;
use super::etc;
use super::layout::{Claim, Layout};
use super::machine::Machine;
use super::network;
use super::output::{Item, Output};
use super::signals::Signals;
use super::supervise::Supervisor;
use crate::cgroup::Cgroups;
use crate::image::Store;
use crate::manifest::{self, Documents, Findings, Severity, nearest};
use crate::net::{self, AddressLease, Publisher};
use crate::plan::{self, Facts, Options, PodPlan, RestartPolicy};
use crate::sandbox::{PodSandbox, PrivateMounts, SandboxSpec, enter_private_mounts};
use crate::volume::Volumes;

/// The thread that starts containers, and the one that runs probes' commands meanwhile.
const BLOCKING_THREADS: usize = 2;
/// Their stacks; what they do is shallow.
const BLOCKING_STACK_BYTES: usize = 256 * 1024;
const BLOCKING_KEEP: Duration = Duration::from_secs(2);
/// How long the last lines may take to be written when nobody reads them.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// What the files say, checked.
#[derive(Debug)]
pub(super) struct Pods {
    documents: Documents,
    options: Options,
    /// `NAMESPACE/NAME` of each.
    names: Vec<String>,
    /// The containers of each.
    containers: Vec<Vec<String>>,
    /// Those with `hostNetwork`.
    on_machine: Vec<String>,
    /// What is not an error.
    remarks: Vec<String>,
}

impl Pods {
    pub(super) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The pod that has this container.
    pub(super) fn pod_of(&self, container: &str) -> Option<&str> {
        let has = |names: &Vec<String>| names.iter().any(|name| name == container);
        let at = self.containers.iter().position(has)?;
        Some(&self.names[at])
    }
}

/// Reads the files. An error lists everything that is wrong in them.
pub(super) fn read(options: &RunOptions) -> Result<Pods, Failure> {
    let (documents, mut findings) = manifest::load(&options.files);
    let plan_options = Options {
        images: options.images.clone(),
        without: options.without.clone(),
        allow_privileged: options.allow_privileged,
        job_pods: Vec::new(),
    };
    let (plans, more) = plan::build(&documents, &plan_options, &Facts::placeholder());
    findings.extend(more);
    let (jobs, more) = plan::jobs(&documents, &plan_options, &Facts::placeholder());
    findings.extend(more);
    findings.sort();
    refuse(&findings)?;
    if let Some(job) = jobs.first() {
        return Err(Failure::Usage(format!(
            "{}: kind: a Job is checked, but not run in this version",
            plan::place_of(&documents, job)
        )));
    }
    let remarks = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Error);
    let pods = Pods {
        documents,
        options: plan_options,
        names: plans.iter().map(full_name).collect(),
        containers: plans
            .iter()
            .map(|plan| plan.containers.iter().map(|c| c.name.clone()).collect())
            .collect(),
        on_machine: plans
            .iter()
            .filter(|plan| plan.host.network)
            .map(full_name)
            .collect(),
        remarks: remarks.map(ToString::to_string).collect(),
    };
    if let Some(name) = &options.exit_code_from
        && pods.pod_of(name).is_none()
    {
        let known = pods.containers.iter().flatten().map(String::as_str);
        let hint = nearest(name, known).map(|near| format!("; did you mean {near}?"));
        return Err(Failure::Usage(format!(
            "--exit-code-from: there is no container {name:?}{}",
            hint.unwrap_or_default()
        )));
    }
    Ok(pods)
}

fn refuse(findings: &Findings) -> Result<(), Failure> {
    if !findings.has_errors() {
        return Ok(());
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    let lines: Vec<String> = errors.map(ToString::to_string).collect();
    Err(Failure::Usage(lines.join("\n")))
}

fn full_name(plan: &PodPlan) -> String {
    format!("{}/{}", plan.namespace, plan.name)
}

/// Runs the one pod, or the one that was chosen.
pub(super) fn run(options: &RunOptions, pods: &Pods) -> Result<u8, Failure> {
    let chosen = match &options.only_pod {
        None => pods.names.first(),
        Some(only) => pods.names.iter().find(|name| *name == only),
    };
    let Some((_, name)) = chosen.and_then(|name| name.split_once('/')) else {
        let only = options.only_pod.as_deref().unwrap_or_default();
        return Err(Failure::Usage(format!(
            "--only-pod: there is no pod {only}"
        )));
    };
    // While this process has one thread.
    let mounts = enter_private_mounts().map_err(|error| Failure::Runtime(error.to_string()))?;
    // Takes its time while everything else is made.
    let cgroups = Cgroups::detect();
    cgroups.warm_up();
    let layout = Layout::new(options.state_dir.as_deref()).with_machine_addresses();
    let claim = layout
        .claim(name)
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    layout.sweep_addresses();
    let (plan, lease) = plan(
        pods,
        &layout,
        chosen.map(String::as_str).unwrap_or_default(),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(BLOCKING_STACK_BYTES)
        .thread_keep_alive(BLOCKING_KEEP)
        .thread_name("start")
        .build()
        .map_err(|error| Failure::runtime("starting the supervisor", error))?;
    let output = Output::new(&plan, options.output, options.only_pod.is_some());
    if options.only_pod.is_none() {
        for message in &pods.remarks {
            output.show(&Item::Warning { message });
        }
    }
    let local = LocalSet::new();
    let result = local.block_on(&runtime, async {
        // From here on a Ctrl-C finds somebody who cleans up.
        let signals = signals(options)?;
        bury_the_dead(&layout, &cgroups).await;
        let base = Base {
            claim: &claim,
            lease: lease.as_ref(),
            mounts: &mounts,
            cgroups: &cgroups,
        };
        let supervisor = prepare(options, plan, base, &output).await?;
        Ok(supervisor.run(signals).await)
    });
    drop(local);
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(lease);
    drop(claim);
    output.queue().finish(OUTPUT_PATIENCE);
    result
}

/// The plan with what is known only now: the pod's own address among it.
fn plan(
    pods: &Pods,
    layout: &Layout,
    chosen: &str,
) -> Result<(PodPlan, Option<AddressLease>), Failure> {
    let lease = RefCell::new(None);
    let on_machine = pods.on_machine.iter().any(|name| name == chosen);
    let facts = |namespace: &str, name: &str| {
        if format!("{namespace}/{name}") != chosen {
            return Facts::placeholder();
        }
        if on_machine {
            return machine_facts(network::machine_address());
        }
        let taken = AddressLease::take(&layout.addresses(), namespace, name);
        let address = taken.as_ref().map(AddressLease::address);
        let facts = machine_facts(address.unwrap_or(Ipv4Addr::LOCALHOST));
        *lease.borrow_mut() = Some(taken);
        facts
    };
    let (plans, findings) = plan::build(&pods.documents, &pods.options, &facts);
    refuse(&findings)?;
    let plan = plans.into_iter().find(|plan| full_name(plan) == chosen);
    match (plan, lease.into_inner()) {
        (Some(plan), Some(Ok(lease))) => Ok((plan, Some(lease))),
        (Some(plan), None) => Ok((plan, None)),
        (_, Some(Err(error))) => Err(Failure::runtime("taking an address for the pod", error)),
        _ => Err(Failure::Runtime(format!(
            "the pod {chosen} is gone from its files"
        ))),
    }
}

fn machine_facts(pod: Ipv4Addr) -> Facts {
    let uid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let node = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = rustix::system::sysinfo();
    Facts {
        uid: uid.trim().to_owned(),
        node_name: node.nodename().to_string_lossy().into_owned(),
        host_ips: vec![network::machine_address().into()],
        pod_ips: vec![pod.into()],
        cpu_milli: 1000 * cores as u64,
        memory_bytes: memory.totalram * u64::from(memory.mem_unit),
    }
}

/// Takes away what supervisors left that were killed.
async fn bury_the_dead(layout: &Layout, cgroups: &Cgroups) {
    let dead = layout.dead();
    if !dead.is_empty() {
        net::sweep(&layout.addresses());
    }
    for name in dead {
        // Lost to another one that does the same, or starts it.
        let Ok(claim) = layout.claim(&name) else {
            continue;
        };
        let cgroup = cgroups.pod(&nothing_of(&name)).await;
        if let Err(error) = cgroup.remove().await {
            tracing::warn!(pod = name, %error, "what is left of a dead pod could not be removed");
        }
        drop(claim);
    }
}

/// A pod of which only the name is known.
fn nothing_of(name: &str) -> PodPlan {
    PodPlan {
        namespace: String::new(),
        hostname: name.to_owned(),
        restart_policy: RestartPolicy::Never,
        grace: Duration::ZERO,
        ..PodPlan::new(name, Vec::new())
    }
}

fn signals(options: &RunOptions) -> Result<Signals, Failure> {
    let stdin = || std::io::stdin().as_fd().try_clone_to_owned();
    let parent = options.only_pod.as_ref().map(|_| stdin()).transpose();
    parent
        .and_then(Signals::new)
        .map_err(|error| Failure::runtime("taking signals", error))
}

/// What this process has taken before it knew the plan.
struct Base<'a> {
    claim: &'a Claim,
    /// None with `hostNetwork`.
    lease: Option<&'a AddressLease>,
    mounts: &'a PrivateMounts,
    cgroups: &'a Cgroups,
}

/// Makes what the containers stand on; the ports first, because theirs is the error that people meet.
async fn prepare(
    options: &RunOptions,
    plan: PodPlan,
    base: Base<'_>,
    output: &Output,
) -> Result<Supervisor, Failure> {
    let runtime = |error: &dyn std::fmt::Display| Failure::Runtime(error.to_string());
    let publisher = Publisher::take(&plan, options.publish).map_err(|e| runtime(&e))?;
    let paths = base.claim.paths().clone();
    let volumes =
        Volumes::prepare(&plan, &paths.volumes(), &paths.claims()).map_err(|e| runtime(&e))?;
    let address = base
        .lease
        .map_or_else(network::machine_address, AddressLease::address);
    etc::write(&paths.etc(), &plan.hostname, address)
        .map_err(|error| Failure::runtime("writing the pod's /etc/hosts", error))?;
    let cgroup = base.cgroups.pod(&plan).await;
    let mut spec = SandboxSpec::new(plan.hostname.clone());
    spec.share_process_namespace = plan.share_process_namespace;
    spec.host = plan.host;
    spec.sysctls = plan.security.sysctls.clone();
    spec.seccomp_dir = options
        .seccomp_dir
        .clone()
        .unwrap_or_else(|| base.claim.layout().seccomp());
    let sandbox = PodSandbox::create(base.mounts, spec).map_err(|e| runtime(&e))?;
    let network = match base.lease {
        Some(lease) => network::own(&sandbox, lease)?,
        None => network::of_machine(),
    };
    let chosen = options.exit_code_from.as_ref();
    let chosen = chosen.and_then(|name| plan.containers.iter().position(|c| c.name == *name));
    let plan = Arc::new(plan);
    let machine = Machine::new(&plan, options.backoff, chosen);
    let ground = Ground {
        plan: plan.into(),
        paths,
        cgroup,
        volumes: volumes.into(),
        sandbox,
    };
    let supervisor = Supervisor::new(
        ground,
        network,
        publisher,
        machine,
        output.clone(),
        Store::new(options.state_dir.as_deref()),
    );
    Ok(supervisor)
}
