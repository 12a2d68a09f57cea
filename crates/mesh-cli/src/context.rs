//! Where the control plane is, and by which token one talks to it.

use std::path::{Path, PathBuf};

use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;
use serde::Deserialize;

use crate::args::Global;

/// Where a server listens when nobody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7420";

/// What a running server writes into its state directory.
#[derive(Debug, Deserialize)]
struct Running {
    url: String,
}

/// The state directory: as it was said, else where the user's programs keep their state.
pub fn state_dir(global: &Global) -> PathBuf {
    if let Some(dir) = &global.state_dir {
        return dir.clone();
    }
    let state =
        std::env::var_os("XDG_STATE_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| ".".into()));
    state.unwrap_or_else(|| home().join(".local/state")).join("schedulemesh")
}

/// A client of the control plane that is meant.
pub fn client(global: &Global) -> Result<HttpClient, Problem> {
    let dir = state_dir(global);
    let running = read_running(&dir)?;
    let url = global
        .url
        .clone()
        .or(running.map(|running| running.url))
        .unwrap_or_else(|| DEFAULT_URL.to_owned());
    let token = match &global.token {
        Some(token) => Some(token.clone()),
        None => read_token(&dir)?,
    };
    HttpClient::new(&url, token.as_deref())
}

fn read_running(dir: &Path) -> Result<Option<Running>, Problem> {
    let path = dir.join("server.json");
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Problem::new(
            "INVALID",
            format!("{} does not name a running server: {error}", path.display()),
            "remove the file, or say --url",
        )
    })
}

fn read_token(dir: &Path) -> Result<Option<String>, Problem> {
    let token = read_if_there(&dir.join("admin.token"))?;
    Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
}

fn read_if_there(path: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Problem::new(
            "FORBIDDEN",
            format!("{} belongs to somebody else", path.display()),
            "say SCHEDULEMESH_URL and SCHEDULEMESH_TOKEN, or another --state-dir",
        )),
        Err(error) => Err(Problem::new(
            "INVALID",
            format!("{} cannot be read: {error}", path.display()),
            "say SCHEDULEMESH_URL and SCHEDULEMESH_TOKEN, or another --state-dir",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    fn global(dir: &Path) -> Global {
        Global { url: None, token: None, state_dir: Some(dir.into()), output: Output::Table }
    }

    #[test]
    fn a_running_server_is_found_in_its_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let found = |global: &Global| client(global).unwrap().url().to_owned();
        assert_eq!(found(&global(dir.path())), DEFAULT_URL);
        std::fs::write(dir.path().join("server.json"), r#"{"url":"http://127.0.0.1:9","pid":1}"#)
            .unwrap();
        assert_eq!(found(&global(dir.path())), "http://127.0.0.1:9");
        let said = Global { url: Some("http://10.0.0.1:7".into()), ..global(dir.path()) };
        assert_eq!(found(&said), "http://10.0.0.1:7");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.json"), "{").unwrap();
        let problem = client(&global(dir.path())).unwrap_err();
        assert_eq!(problem.code, "INVALID");
        assert!(problem.message.contains("server.json does not name a running server"));
    }
}
