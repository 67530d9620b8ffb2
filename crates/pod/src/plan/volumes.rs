//! Volumes: what each holds, sizes as numbers.

use k8s_openapi::api::core::v1::{ImageVolumeSource, PersistentVolumeClaimVolumeSource, Volume};

use super::build::Context;
use super::published::{self, Published, Reference};
use super::{
    ContainerPlan, HostPathType, ImageSource, PodPlan, VolumeKind, VolumePlan, container, downward,
    images,
};
use crate::manifest::{Notes, Path, Quantity, namespace_of};

/// What a file of a ConfigMap or Secret may do when nothing is said.
const DEFAULT_MODE: u32 = 0o644;

/// A volume; `None` when what it refers to is missing (noted).
pub(super) fn volume(
    volume: &Volume,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<VolumePlan> {
    let kind = if let Some(host) = &volume.host_path {
        VolumeKind::HostPath {
            path: host.path.as_str().into(),
            expect: host_path_type(host.type_.as_deref().unwrap_or("")),
        }
    } else if let Some(map) = &volume.config_map {
        let mode = default_mode(map.default_mode);
        let (name, optional) = (map.name.as_str(), map.optional == Some(true));
        let mut out = Published::new(mode);
        let at = at.key("configMap");
        let from = Reference {
            name,
            field: "name",
            optional,
            items: map.items.as_deref(),
        };
        published::config_map(&from, &at, context, &mut out, notes)?;
        out.into_kind(false)
    } else if let Some(secret) = &volume.secret {
        let mode = default_mode(secret.default_mode);
        let name = secret.secret_name.as_deref().unwrap_or("");
        let optional = secret.optional == Some(true);
        let mut out = Published::new(mode);
        let from = Reference {
            name,
            field: "secretName",
            optional,
            items: secret.items.as_deref(),
        };
        published::secret(&from, &at.key("secret"), context, &mut out, notes)?;
        out.into_kind(true)
    } else if let Some(downward) = &volume.downward_api {
        let mut out = Published::new(default_mode(downward.default_mode));
        let items = downward.items.as_deref().unwrap_or_default();
        downward::files(items, &at.key("downwardAPI"), context, &mut out, notes);
        // The kubelet keeps these in memory.
        out.into_kind(true)
    } else if let Some(projected) = &volume.projected {
        let mut out = Published::new(default_mode(projected.default_mode));
        let at = at.key("projected");
        for (i, source) in projected.sources.iter().flatten().enumerate() {
            published::source(source, &at.item("sources", i), context, &mut out, notes)?;
        }
        out.into_kind(true)
    } else if let Some(claim) = &volume.persistent_volume_claim {
        claim_of(claim, &at.key("persistentVolumeClaim"), context, notes)
    } else if let Some(image) = &volume.image {
        image_of(image, &at.key("image"), notes)?
    } else if volume.ephemeral.is_some() {
        // A claim that dies with the pod is a directory of the pod's.
        VolumeKind::EmptyDir { limit_bytes: None }
    } else {
        // Without any source it is an emptyDir: the API server's default.
        let dir = volume.empty_dir.as_ref();
        let limit = dir.and_then(|dir| dir.size_limit.as_ref());
        let limit = limit.and_then(|limit| limit.0.parse::<Quantity>().ok());
        // A limit of 0 is none (kubelet, `getMemoryMountSize`, `emptyDirLimitEviction`).
        let limit_bytes = limit
            .and_then(|limit| u64::try_from(limit.value()).ok())
            .filter(|bytes| *bytes > 0);
        match dir.and_then(|dir| dir.medium.as_deref()) {
            Some("Memory") => VolumeKind::Memory { limit_bytes },
            _ => VolumeKind::EmptyDir { limit_bytes },
        }
    };
    Some(VolumePlan {
        name: volume.name.clone(),
        kind,
    })
}

fn host_path_type(text: &str) -> HostPathType {
    match text {
        "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
        "Directory" => HostPathType::Directory,
        "FileOrCreate" => HostPathType::FileOrCreate,
        "File" => HostPathType::File,
        "Socket" => HostPathType::Socket,
        "CharDevice" => HostPathType::CharDevice,
        "BlockDevice" => HostPathType::BlockDevice,
        _ => HostPathType::Unset,
    }
}

fn default_mode(given: Option<i32>) -> u32 {
    given
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(DEFAULT_MODE)
}

/// An image by its name; `None` when there is no such image to mount (noted).
fn image_of(source: &ImageVolumeSource, at: &Path, notes: &mut Notes<'_>) -> Option<VolumeKind> {
    let image = source.reference.clone().unwrap_or_default();
    let wrong = match images::by_name(&image) {
        Ok(ImageSource::Image(location)) => {
            return Some(VolumeKind::Image {
                pull: container::pull(source.pull_policy.as_deref(), &image),
                image,
                location,
            });
        }
        Ok(_) => format!(
            "{image:?} is this program itself, which is in no registry; `podkit install DIR` in an init container copies it into an emptyDir"
        ),
        Err(message) => message,
    };
    notes.error(&at.key("reference"), wrong);
    None
}

impl PodPlan {
    /// The volumes with images that a container mounts.
    pub(crate) fn image_volumes<'a>(
        &'a self,
        container: &'a ContainerPlan,
    ) -> impl Iterator<Item = &'a VolumePlan> {
        let images = self.volumes.iter();
        let images = images.filter(|volume| matches!(volume.kind, VolumeKind::Image { .. }));
        let mounts = |volume: &&VolumePlan| {
            let mut mounts = container.mounts.iter();
            mounts.any(|mount| mount.volume == volume.name)
        };
        images.filter(mounts)
    }
}

/// A claim by its name. One without an object in the files may be there since another run, or is made: it is said.
fn claim_of(
    claim: &PersistentVolumeClaimVolumeSource,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> VolumeKind {
    let (namespace, name) = (context.namespace(), &claim.claim_name);
    let documents = context.documents;
    let found = documents.claims.iter().map(|claim| &claim.object);
    let found = found
        .filter(|object| object.metadata.name.as_ref() == Some(name))
        .find(|object| namespace_of(&object.metadata) == namespace);
    if found.is_none() && !documents.is_broken_object("PersistentVolumeClaim", namespace, name) {
        notes.warning(
            &at.key("claimName"),
            format!(
                "there is no PersistentVolumeClaim {name:?} in the files; it is a directory of this machine all the same, \
                 which is made when it is not there and outlives the pod"
            ),
        );
    }
    let resources = found.and_then(|claim| claim.spec.as_ref()?.resources.as_ref());
    let storage = resources.and_then(|resources| resources.requests.as_ref()?.get("storage"));
    VolumeKind::Claim {
        namespace: namespace.to_owned(),
        name: name.clone(),
        read_only: claim.read_only == Some(true),
        request_bytes: storage
            .and_then(|storage| storage.0.parse::<Quantity>().ok())
            .and_then(|storage| u64::try_from(storage.value()).ok()),
    }
}
