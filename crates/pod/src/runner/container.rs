//! One run of a container: from its plan to a process, its logs, and its end.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::console::{Console, Outputs, Streams};
use super::images::Here;
use super::layout::Paths;
use super::log_files::LogFiles;
use super::machine::{Exit, StartFailure};
use super::message::{LogTail, Message};
use super::output::Output;
use super::{etc, logs, oom, state};
use crate::cgroup::{ContainerCgroup, PodCgroup};
use crate::image::{self, ResolvedImage};
use crate::plan::{ContainerPlan, ImageSource, PodPlan, image_stop_signal};
use crate::sandbox::{ContainerStart, ExitStatus, Mount, PodSandbox, Process, Rlimit, Signal};
use crate::volume::Volumes;

/// How long what a container wrote last may take to be read before its end is told.
const LOGS_PATIENCE: Duration = Duration::from_millis(200);

/// What every container of the pod is started from.
#[derive(Debug)]
pub(crate) struct Ground {
    /// What is to run; what runs may have been started by an earlier one.
    pub(super) plan: RwLock<Arc<PodPlan>>,
    pub(super) paths: Paths,
    pub(super) cgroup: PodCgroup,
    pub(super) volumes: Mutex<Volumes>,
    pub(crate) sandbox: PodSandbox,
    /// The limit on open files that containers begin with.
    pub(super) open_files: Rlimit,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Running {
    plan: Arc<PodPlan>,
    id: usize,
    pub(crate) process: Process,
    /// Its streams, for those who attach.
    pub(crate) console: Arc<Console>,
    pub(super) cgroup: ContainerCgroup,
    /// When its program was executed.
    pub(super) since: Instant,
    oom_kills_before: u64,
    stop_signal: Signal,
    message: Message,
}

/// What a start has given.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) running: Running,
    /// What it writes.
    pub(super) outputs: Outputs,
    /// What was asked for and could not be had.
    pub(super) warnings: Vec<String>,
}

impl Ground {
    /// What is to run.
    pub(super) fn plan(&self) -> Arc<PodPlan> {
        Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a container and returns when its program has been executed. Blocks for some milliseconds. `ensured`: its
    /// image and those of the volumes that it mounts, as far as they are the store's.
    pub(super) fn start(&self, id: usize, ensured: &Here) -> Result<Begun, StartFailure> {
        let pod = self.plan();
        let whole = self.whole(&pod.containers[id])?;
        let plan = &*whole;
        let image = image::resolve(plan, &self.paths.scratch(&plan.name), ensured.own.as_ref())?;
        let argv = image.argv(plan)?;
        let mut start = ContainerStart::new(image.root.clone(), argv);
        start.rlimits = vec![self.open_files];
        start.env = image.env(plan);
        if plan.stdin.tty && !start.env.iter().any(|(name, _)| name == "TERM") {
            // As container runtimes do.
            start.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        start.cwd = image.working_dir(plan);
        start.mounts = self.mounts(&pod, plan, &ensured.volumes)?;
        let message = Message::prepare(&self.paths.messages(), &plan.name, &pod)
            .map_err(|error| StartFailure::step("preparing the termination message", &error))?;
        start.mounts.push(message.mount(&plan.message_path));
        start.security = plan.security.clone();
        start.image_user = image.config.user.clone();
        start.groups = pod.security.supplemental_groups.clone();
        start.groups.extend(pod.security.fs_group);
        start.groups_strict = pod.security.groups_strict;
        let score = oom::score_adjustment(&pod, plan, oom::machine_bytes());
        start.oom_score_adj = Some(score);
        let (mut cgroup, mut warnings) = self.cgroup.container(&plan.name, &plan.resources);
        warnings.extend(self.guard_devices(plan, &mut cgroup));
        start.cgroups = cgroup.procs_files();
        let oom_kills_before = cgroup.oom_kills();
        let (streams, stdio) = Streams::make(plan.stdin)
            .map_err(|error| StartFailure::step("making a pipe", &error))?;
        start.stdio = stdio;
        let process = self.sandbox.start(&start)?;
        // Its ends of the pipes: they would never come to their end.
        drop(start);
        let joined = streams.join(&process);
        let (console, outputs) = joined
            .map_err(|error| StartFailure::step("joining its standard input and output", &error))?;
        let own = process.warnings().iter();
        warnings.extend(own.map(|warning| format!("container {}: {warning}", plan.name)));
        let of_image = image.config.stop_signal.as_deref();
        let stop_signal = plan
            .stop_signal
            .or_else(|| of_image.and_then(image_stop_signal))
            .unwrap_or(Signal::TERM);
        Ok(Begun {
            running: Running {
                plan: Arc::clone(&pod),
                id,
                process,
                console: Arc::new(console),
                cgroup,
                since: Instant::now(),
                oom_kills_before,
                stop_signal,
                message,
            },
            outputs,
            warnings,
        })
    }

    /// A line when the devices of the machine stay open to one who can reach them.
    fn guard_devices(&self, plan: &ContainerPlan, cgroup: &mut ContainerCgroup) -> Option<String> {
        // In a user namespace a node opens nothing, wherever it is.
        if plan.security.privileged || !image::owns_machine() {
            return None;
        }
        let why = self.cgroup.guard_devices(cgroup, &plan.name).err()?;
        let may_mount = |name: &String| name == "SYS_ADMIN" || name == "ALL";
        plan.security.add_capabilities.iter().any(may_mount).then(|| {
            format!(
                "container {} has SYS_ADMIN, and the machine's devices are not shut to it: {why}",
                plan.name
            )
        })
    }

    /// With what the files of volumes say now, where it asks for that.
    fn whole<'a>(&self, plan: &'a ContainerPlan) -> Result<Cow<'a, ContainerPlan>, StartFailure> {
        let Some(at_start) = &plan.at_start else {
            return Ok(Cow::Borrowed(plan));
        };
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = at_start.complete(plan, |key| volumes.env_value(key));
        whole
            .map(Cow::Owned)
            .map_err(|error| StartFailure::config(&error))
    }

    fn mounts(
        &self,
        pod: &PodPlan,
        plan: &ContainerPlan,
        images: &[(String, ResolvedImage)],
    ) -> Result<Vec<Mount>, StartFailure> {
        let mut mounts = etc::mounts(&self.paths.etc(), plan);
        if shares_state(pod, plan) {
            mounts.push(Mount::path(self.paths.shared(), state::SHARED).read_only(true));
        }
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        for (volume, image) in images {
            volumes
                .mount_image(volume, &image.layers, image.user_xattrs)
                .map_err(|error| StartFailure::config(&error))?;
        }
        for mount in &plan.mounts {
            let source = volumes
                .source(mount)
                .map_err(|error| StartFailure::config(&error))?;
            mounts.push(
                Mount::fd(source.fd, &mount.path)
                    .read_only(source.read_only)
                    .recursive_read_only(mount.recursive_read_only)
                    .propagation(mount.propagation),
            );
        }
        Ok(mounts)
    }

    /// Whether some container sees `pod.json`.
    pub(super) fn anyone_shares_state(&self) -> bool {
        let pod = self.plan();
        pod.containers.iter().any(|plan| shares_state(&pod, plan))
    }
}

/// podkit's own containers see the pod's state where they see its processes.
fn shares_state(pod: &PodPlan, plan: &ContainerPlan) -> bool {
    let taken = |mount: &crate::plan::MountPlan| mount.path == std::path::Path::new(state::SHARED);
    pod.share_process_namespace
        && plan.source == ImageSource::Itself
        && !plan.mounts.iter().any(taken)
}

impl Running {
    /// What it was started by.
    pub(crate) fn container(&self) -> &ContainerPlan {
        &self.plan.containers[self.id]
    }

    /// Sends its stop signal to the first process, or SIGKILL to all.
    pub(super) fn signal(&self, kill: bool) {
        let signal = if kill { Signal::KILL } else { self.stop_signal };
        if let Err(error) = self.process.signal(signal) {
            tracing::error!(pid = self.process.pid(), %error, "a container could not be signalled");
        }
        if kill {
            self.cgroup.kill_all();
        }
    }

    /// Waits for the end of the run, ends what it left behind, and lets its last words be read.
    pub(super) async fn end(&self, ground: &Arc<Ground>, logs: Logs) -> Exit {
        let status = match self.process.exited().await {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(pid = self.process.pid(), %error, "a container could not be waited for");
                ExitStatus::Code(255)
            }
        };
        let oom = self.cgroup.oom_kills() > self.oom_kills_before;
        if self.plan.share_process_namespace {
            // Elsewhere the kernel does it: the first process is the PID namespace's.
            self.cgroup.kill_all();
            if let Err(error) = ground.sandbox.kill_rest(&self.process) {
                tracing::warn!(pid = self.process.pid(), %error, "looking for what a container left");
            }
        }
        let read = async {
            for log in logs.read {
                // A reader that has failed has said so.
                let _read = log.await;
            }
        };
        // Whoever does not come to its end by then (the output is blocked) goes on reading.
        let _in_time = tokio::time::timeout(LOGS_PATIENCE, read).await;
        let tail = logs.tail.filter(|_| !status.success());
        Exit {
            code: status.code(),
            message: self.message.read(tail.as_ref()),
            signal: match status {
                ExitStatus::Signal(signal) => Some(signal),
                ExitStatus::Code(_) => None,
            },
            oom,
        }
    }
}

/// The logs of a run while they are read.
#[derive(Debug)]
pub(super) struct Logs {
    read: Vec<JoinHandle<()>>,
    /// Their end, where it may be the run's termination message.
    tail: Option<LogTail>,
}

/// Shows and keeps all that a run writes from now on.
pub(super) fn follow_logs(
    outputs: Outputs,
    running: &Running,
    run: u32,
    output: &Output,
    files: &LogFiles,
) -> Logs {
    let id = running.id;
    let wanted = running.container().message_from_logs;
    let tail = wanted.then(LogTail::default);
    let follow = |(stream, source)| {
        let log = logs::Log {
            container: id,
            run,
            stream,
            output: output.clone(),
            files: files.clone(),
            console: Arc::clone(&running.console),
            tail: tail.clone(),
        };
        tokio::task::spawn_local(async move {
            let (files, console) = (log.files.clone(), Arc::clone(&log.console));
            if let Err(error) = logs::follow(source, log).await {
                tracing::error!(container = id, %error, "a container's log could not be read");
            }
            console.stream_ended();
            // Who is told of the end finds all of the log.
            files.flushed().await;
        })
    };
    Logs {
        read: outputs.into_iter().map(follow).collect(),
        tail,
    }
}
