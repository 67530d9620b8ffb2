//! The volumes of a pod.
