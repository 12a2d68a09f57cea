//! The first start in an empty directory, killed in the middle: the next one must begin as if there
//! had been none, or go on with what is there.

use std::time::Duration;

use mesh_api::http_client::{HttpClient, TaskQuery};

use super::process::{Server, Setup};
use super::{READY_WITHIN, last_lines, was_killed};
use crate::history::{Law, Verdict, Violation, law};

/// Kills a first start, and starts again. Whether it was killed.
pub(super) async fn live(setup: &Setup, orders: &str) -> Result<bool, Violation> {
    let failed = |error: std::io::Error| Violation::new(Law::NoPanic, error.to_string());
    let dir = tempfile::tempdir().map_err(failed)?;
    let port = super::process::free_port().map_err(failed)?;
    let setup = Setup { state_dir: dir.path().join("state"), port, ..setup.clone() };
    let mut first = setup.start(orders).map_err(failed)?;
    // Whether it was killed is looked at below.
    let _status = first.wait_ended(Duration::from_secs(3)).await;
    let killed = was_killed(&mut first);
    first.kill();
    let mut second = setup.start("").map_err(failed)?;
    let verdict = works(&setup, &mut second).await;
    verdict.map(|()| killed).map_err(|broken| {
        let (what, said) = (&broken.what, last_lines(&second.said()));
        Violation::new(broken.law, format!("after a killed first start: {what}\n{said}"))
    })
}

/// Whether a server takes work, knows the token in its directory, and ends in peace.
async fn works(setup: &Setup, server: &mut Server) -> Verdict {
    let url = format!("http://127.0.0.1:{}", setup.port);
    let wrong =
        |problem: mesh_api::problem::Problem| Violation::new(Law::StepByStep, problem.to_string());
    let probe = HttpClient::new(&url, None).map_err(wrong)?;
    let is_up = server.wait_up(&probe, READY_WITHIN).await;
    law(Law::EverythingEnds, is_up, || "it does not start".into())?;
    let token = mesh_server::state_dir::admin_token(&setup.state_dir);
    law(Law::StepByStep, token.is_some(), || "it has no token".into())?;
    let http = HttpClient::new(&url, token.as_deref()).map_err(wrong)?;
    http.tasks(&TaskQuery::default()).await.map_err(wrong)?;
    server.signal(libc::SIGTERM);
    let status = server.wait_ended(Duration::from_secs(10)).await;
    law(Law::EverythingEnds, status.is_some_and(|status| status.success()), || {
        format!("asked to end, it ended with {status:?}")
    })?;
    super::judge::tidy(&setup.state_dir)
}
