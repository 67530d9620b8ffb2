//! Pushing: each blob in one piece, then the manifest. (distribution-spec, "Push")

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use hyper::{Method, StatusCode};

use super::{PullError, Registry, header};
use crate::image::digest::Digest;

impl Registry {
    /// Uploads a blob, unless it is there.
    pub(in crate::image) fn push_blob(
        &self,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), PullError> {
        let repository = self.reference.repository();
        let there = self.send(
            &Method::HEAD,
            &format!("/v2/{repository}/blobs/{digest}"),
            &[],
        )?;
        if there.status == StatusCode::OK {
            return Ok(());
        }
        let begun = self.send(
            &Method::POST,
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
        )?;
        let begun = self.expect(begun, &[StatusCode::ACCEPTED])?;
        let location = header(&begun.headers, LOCATION.as_str()).ok_or_else(|| {
            PullError::fatal(format!(
                "{}: the registry does not say where to upload",
                self.reference
            ))
        })?;
        let mut url = self.connector.url("/").join(location)?;
        let separator = if url.path.contains('?') { '&' } else { '?' };
        url.path += &format!(
            "{separator}digest={}",
            digest.to_string().replace(':', "%3A")
        );
        let headers = [
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, bytes.len().to_string()),
        ];
        let content = Bytes::copy_from_slice(bytes);
        let answer = self.send_content(&Method::PUT, url, &headers, &content)?;
        self.expect(answer, &[StatusCode::CREATED]).map(drop)
    }

    /// Gives the manifest its name there.
    pub(in crate::image) fn push_manifest(
        &self,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), PullError> {
        let (repository, asked) = (self.reference.repository(), self.reference.asked());
        let url = self
            .connector
            .url(&format!("/v2/{repository}/manifests/{asked}"));
        let headers = [
            (CONTENT_TYPE, media_type.to_owned()),
            (CONTENT_LENGTH, bytes.len().to_string()),
        ];
        let content = Bytes::copy_from_slice(bytes);
        let answer = self.send_content(&Method::PUT, url, &headers, &content)?;
        self.expect(answer, &[StatusCode::CREATED, StatusCode::OK])
            .map(drop)
    }
}
