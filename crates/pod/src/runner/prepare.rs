//! From the command line to a pod that is ready to begin: read, check, claim, plan, and make what the containers stand on.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podkit_foundation::error::Failure;
use serde_json::Value;
use tokio::task::LocalSet;

use super::RunOptions;
use super::container::Ground;
use super::definition::{self, Definition};
use super::descriptors;
use super::detach;
use super::etc;
use super::ids;
use super::layout::{Claim, ClaimError, Layout, Paths};
use super::log_files::LogFiles;
use super::machine::Machine;
use super::network;
use super::oom;
use super::output::{Item, Output};
use super::pulls;
use super::signals::Signals;
use super::state::DETACHED;
use super::supervise::{Followed, Supervisor};
use crate::cgroup::Cgroups;
use crate::control::lost;
use crate::image::{Store, upper};
use crate::manifest::{self, Documents, Findings, Severity, nearest};
use crate::net::{self, AddressLease, Publisher};
use crate::plan::{self, Facts, JobPlan, JobPod, Options, PodPlan, RestartPolicy};
use crate::sandbox::{PodSandbox, PrivateMounts, Rlimit, SandboxSpec, enter_private_mounts};
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
    jobs: Vec<JobPlan>,
    /// With `--watch`: as they are in the files.
    plans: Vec<PodPlan>,
    /// Of the files, before they were read.
    sum: u64,
}

impl Pods {
    pub(super) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn jobs(&self) -> &[JobPlan] {
        &self.jobs
    }

    /// With `--watch`: as they are in the files, but for what is known of a pod only when it begins.
    pub(super) fn plans(&self) -> &[PodPlan] {
        &self.plans
    }

    /// What the files' contents were.
    pub(super) fn sum(&self) -> u64 {
        self.sum
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
    let follows = definition::are_files(&options.files);
    if options.watch && !follows {
        return Err(Failure::Usage(
            "--watch: only files can be watched, and not standard input or a pipe".to_owned(),
        ));
    }
    // Before they are read: what is written meanwhile is seen as a change.
    let sum = if follows {
        definition::sum(&options.files)
    } else {
        0
    };
    let (documents, mut findings) = manifest::load(&options.files, options.name_seed.seed());
    let plan_options = Options {
        images: options.images.clone(),
        without: options.without.clone(),
        allow_privileged: options.allow_privileged,
        job_pods: options
            .job_pod
            .as_deref()
            .map(job_pod)
            .into_iter()
            .collect(),
        name_seed: options.name_seed.seed(),
    };
    let (plans, more) = plan::build(&documents, &plan_options, &Facts::placeholder());
    findings.extend(more);
    let (jobs, more) = plan::jobs(&documents, &plan_options, &Facts::placeholder());
    findings.extend(more);
    findings.sort();
    refuse(&findings)?;
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
        jobs,
        sum,
        plans: if options.watch && options.only_pod.is_none() {
            plans
        } else {
            Vec::new()
        },
    };
    Ok(pods)
}

/// Whether the command line can be honoured with these pods.
pub(super) fn suits(options: &RunOptions, pods: &Pods) -> Result<(), Failure> {
    if let Some(job) = pods.jobs.first().filter(|_| options.detached) {
        return Err(Failure::Usage(format!(
            "{}: kind: a Job runs in the foreground; run it without --detach",
            plan::place_of(&pods.documents, job)
        )));
    }
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
    Ok(())
}

/// `NAMESPACE/JOB/POD[/INDEX]`, as [`many`](super::many) writes it.
fn job_pod(text: &str) -> JobPod {
    let mut parts = text.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    JobPod {
        namespace: next(),
        job: next(),
        name: next(),
        index: next().parse().ok(),
    }
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
    let Some((namespace, name)) = chosen.and_then(|name| name.split_once('/')) else {
        let only = options.only_pod.as_deref().unwrap_or_default();
        return Err(Failure::Usage(format!(
            "--only-pod: there is no pod {only}"
        )));
    };
    // While this process has one thread.
    let mounts = enter_private_mounts().map_err(|error| Failure::Runtime(error.to_string()))?;
    let open_files = descriptors::raise_limit();
    // Takes its time while everything else is made.
    let cgroups = Cgroups::detect();
    cgroups.warm_up();
    let layout = Layout::new(options.state_dir.as_deref()).with_machine_addresses();
    let claim = layout
        .claim(&plan::pod_key(namespace, name))
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    layout.sweep_addresses();
    let full_name = chosen.map(String::as_str).unwrap_or_default();
    let (plan, lease) = plan(pods, &layout, full_name)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(BLOCKING_STACK_BYTES)
        .thread_keep_alive(BLOCKING_KEEP)
        .thread_name("start")
        .build()
        .map_err(|error| Failure::runtime("starting the supervisor", error))?;
    let output = match options.detached {
        false => {
            let several = options.only_pod.is_some();
            Output::new(&plan, options.output, several, options.screen.clone())
        }
        true => Output::none(),
    };
    if options.only_pod.is_none() {
        for message in &pods.remarks {
            output.show(&Item::Warning { message });
        }
        if options.detached {
            detach::warn(&pods.remarks);
        }
    }
    let names: Vec<String> = plan.containers.iter().map(|one| one.name.clone()).collect();
    let files = LogFiles::new(&claim.paths().logs(), &names, options.log_limits());
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
            open_files,
        };
        let apply = options.watch && options.job_pod.is_none();
        let definition = Definition::new(
            &options.files,
            &pods.documents,
            &pods.options,
            &plan,
            apply,
            pods.sum,
        );
        let followed = definition.map(|definition| Followed { definition, apply });
        let shown = (&output, files.clone());
        let mut supervisor = prepare(options, plan, base, shown, followed).await?;
        let server = supervisor.open().map_err(Failure::Runtime)?;
        if options.detached {
            let alone = options.only_pod.is_none();
            detach::begun(full_name, &claim.paths().supervisor_log(), alone)?;
        }
        let screen = options.screen.as_ref().filter(|_| !options.detached);
        let shown = screen.map(|screen| {
            let (pulls, pod, screen) = (supervisor.pulls(), full_name.to_owned(), screen.clone());
            tokio::task::spawn_local(async move { pulls::show_own(&pulls, &pod, &*screen).await })
        });
        let outcome = supervisor.run(signals, server).await;
        if let (Some(screen), Some(shown)) = (screen, shown) {
            shown.abort();
            screen.show(full_name, Vec::new());
        }
        Ok(outcome)
    });
    drop(local);
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(lease);
    files.finish(OUTPUT_PATIENCE);
    let result = result.map(|outcome| {
        // Nobody may have seen how it ended.
        if options.detached
            && !outcome.deleted
            && let Err(error) = claim.keep(&outcome.record)
        {
            tracing::warn!(%error, "the status of the pod could not be kept");
        }
        match outcome.exit_code {
            // Whoever deletes a pod of a Job has not done its work, however well it took that: the Job makes another.
            0 if options.job_pod.is_some() && outcome.deleted => 1,
            code => code,
        }
    });
    drop(claim);
    output.finish(OUTPUT_PATIENCE);
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

/// Of a pod that has no address yet.
pub(super) fn fresh_facts() -> Facts {
    machine_facts(Ipv4Addr::LOCALHOST)
}

fn machine_facts(pod: Ipv4Addr) -> Facts {
    let uid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let node = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Facts {
        uid: uid.trim().to_owned(),
        node_name: node.nodename().to_string_lossy().into_owned(),
        host_ips: vec![network::machine_address().into()],
        pod_ips: vec![pod.into()],
        cpu_milli: 1000 * cores as u64,
        memory_bytes: oom::machine_bytes(),
    }
}

/// Takes away what supervisors left that were killed; of a detached pod its last status and its logs stay.
async fn bury_the_dead(layout: &Layout, cgroups: &Cgroups) {
    let dead = layout.dead();
    if !dead.is_empty() {
        net::sweep(&layout.addresses());
    }
    for name in dead {
        // Lost to another one that does the same, or starts it.
        let Ok(claim) = layout.take(&name) else {
            continue;
        };
        if let Err(error) = remove_cgroup(cgroups, &name).await {
            tracing::warn!(pod = name, %error, "what is left of a dead pod could not be removed");
        }
        if let Some(pod) = last_state(claim.paths())
            && let Err(error) = claim.keep(&serde_json::json!({"pod": lost(pod), "events": []}))
        {
            tracing::warn!(pod = name, %error, "the last status of a dead pod could not be kept");
        }
        drop(claim);
    }
}

async fn remove_cgroup(cgroups: &Cgroups, key: &str) -> Result<(), String> {
    let cgroup = cgroups.pod(&nothing_of(key)).await;
    cgroup.remove().await.map_err(|error| error.to_string())
}

/// What is known of a detached pod whose supervisor was killed.
fn last_state(paths: &Paths) -> Option<Value> {
    let state: Value = serde_json::from_slice(&std::fs::read(paths.state()).ok()?).ok()?;
    let detached = state["metadata"]["annotations"][DETACHED] == "true";
    detached.then_some(state)
}

/// Takes away what there is of a pod whose supervisor has ended; false when it lives.
pub(super) fn remove(state_dir: Option<&Path>, key: &str) -> Result<bool, Failure> {
    let layout = Layout::new(state_dir);
    let claim = match layout.take(key) {
        Ok(claim) => claim,
        Err(ClaimError::Runs { .. }) => return Ok(false),
        Err(error) => return Err(Failure::Runtime(error.to_string())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("removing a pod", error))?;
    runtime
        .block_on(remove_cgroup(&Cgroups::detect(), key))
        .map_err(|error| Failure::runtime("removing a pod", error))?;
    drop(claim);
    Ok(true)
}

/// A pod of which only the key is known: in no namespace it is its name.
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
    /// For the containers.
    open_files: Rlimit,
}

/// Makes what the containers stand on; the ports first, because theirs is the error that people meet.
async fn prepare(
    options: &RunOptions,
    plan: PodPlan,
    base: Base<'_>,
    (output, files): (&Output, LogFiles),
    followed: Option<Followed>,
) -> Result<Supervisor, Failure> {
    let runtime = |error: &dyn std::fmt::Display| Failure::Runtime(error.to_string());
    ids::check(&plan, base.mounts.ids())?;
    let publisher = Publisher::take(&plan, options.publish).map_err(|e| runtime(&e))?;
    let paths = base.claim.paths().clone();
    // The file may have several pods with volumes of one name.
    let mut volumes = Volumes::prepare(&plan, &paths.volumes(), &paths.claims())
        .map_err(|error| Failure::runtime(format_args!("pod {}", full_name(&plan)), error))?;
    volumes.watch_containers(&plan, |name| {
        vec![paths.logs().join(name), upper(&paths.scratch(name))]
    });
    let hostname = etc::hostname(&plan).map_err(|e| runtime(&e))?;
    let cgroup = base.cgroups.pod(&plan).await;
    let mut spec = SandboxSpec::new(hostname.clone());
    spec.share_process_namespace = plan.share_process_namespace;
    spec.host = plan.host;
    spec.sysctls = plan.security.sysctls.clone();
    spec.seccomp_dir = options
        .seccomp_dir
        .clone()
        .unwrap_or_else(|| base.claim.layout().seccomp());
    let sandbox = PodSandbox::create(base.mounts, spec).map_err(|e| runtime(&e))?;
    let mut network = match base.lease {
        Some(lease) => network::own(&plan, &sandbox, lease)?,
        None => network::of_machine(&plan),
    };
    // Nothing is said before the supervisor listens: whoever hears it may ask then.
    let lost = ids::warnings(&plan, base.mounts.ids());
    network.warnings.splice(..0, lost);
    let (address, resolv) = (network.net.address(), &network.resolv.text);
    etc::write(&paths.etc(), &plan, &hostname, address, resolv)
        .map_err(|error| Failure::runtime("writing the pod's /etc/hosts", error))?;
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
        open_files: base.open_files,
    };
    let output = output.clone();
    let supervisor = Supervisor::new(
        ground,
        network,
        publisher,
        machine,
        output,
        (Store::new(options.state_dir.as_deref()), files),
        (options.detached, followed),
    );
    Ok(supervisor)
}
