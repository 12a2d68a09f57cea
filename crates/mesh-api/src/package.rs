//! Packages: archives of users' folders, which runtime environments name as
//! `schedulemesh://ID/SIZE/NAME` until the agent of a cluster has brought them into Ray.

use mesh_core::model::task::BlobId;

use crate::convert::blob_id;

/// What the name of a package in a runtime environment begins with.
pub const SCHEME: &str = "schedulemesh://";

/// Most bytes of a package.
pub const PACKAGE_MAX: u64 = 256 << 20;

/// How many digits an id has.
const DIGITS: usize = 32;

/// The id of a package: the first half of the BLAKE3 digest of its bytes.
pub fn id_of(digest: &blake3::Hash) -> BlobId {
    let half: [u8; 16] = std::array::from_fn(|at| digest.as_bytes().get(at).copied().unwrap_or(0));
    BlobId(u128::from_be_bytes(half))
}

/// The packages that the text of a runtime environment names.
pub fn named(runtime_env: &str) -> impl Iterator<Item = BlobId> + use<> {
    let rests = runtime_env.split(SCHEME).skip(1);
    let ids = rests.filter_map(|rest| blob_id(rest.get(..DIGITS)?).ok());
    ids.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::blob_text;

    #[test]
    fn an_id_is_the_beginning_of_the_digest() {
        let digest = blake3::hash(b"bytes");
        let beginning: String = digest.to_hex().chars().take(DIGITS).collect();
        assert_eq!(blob_text(id_of(&digest)), beginning);
    }

    #[test]
    fn all_packages_of_an_environment_are_found_and_nothing_else() {
        let (one, other) = ("0".repeat(31) + "1", "f".repeat(32));
        let env = format!(
            r#"{{"working_dir":"{SCHEME}{one}/3/a.zip","py_modules":["{SCHEME}{other}/9/b.whl",
               "https://x/{one}.zip","{SCHEME}short"]}}"#
        );
        let found: Vec<BlobId> = named(&env).collect();
        assert_eq!(found, [BlobId(1), BlobId(u128::MAX)]);
    }
}
