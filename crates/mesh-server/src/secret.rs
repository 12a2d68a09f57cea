//! Secrets by reference: entries of clusters say where a token is, never what it is.

use mesh_api::problem::Problem;

/// Reads the secret that a reference names: `env:NAME` or `file:PATH`.
pub fn resolve(reference: &str) -> Result<String, Problem> {
    let found = match reference.split_once(':') {
        Some(("env", name)) => std::env::var_os(name)
            .and_then(|value| value.into_string().ok())
            .ok_or_else(|| format!("the server's environment has no {name}")),
        Some(("file", path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("the server can't read {path}: {error}")),
        _ => Err(format!("{reference:?} is neither env:NAME nor file:PATH")),
    };
    let secret = found.map(|text| text.trim().to_owned()).and_then(|text| {
        if text.is_empty() { Err(format!("there is nothing at {reference}")) } else { Ok(text) }
    });
    secret.map_err(|why| {
        Problem::new("INVALID", why, "put the token where the cluster's entry says that it is")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_where_its_reference_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(resolve(&format!("file:{}", path.display())).unwrap(), "hunter2");
        assert_eq!(
            resolve("env:SCHEDULEMESH_NO_SUCH").unwrap_err().message,
            "the server's environment has no SCHEDULEMESH_NO_SUCH"
        );
        assert_eq!(resolve("hunter2").unwrap_err().code, "INVALID");
    }
}
