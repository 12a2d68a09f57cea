//! Running the control plane.

use mesh_api::problem::Problem;
use mesh_api::v1::ConfigView;
use mesh_server::Server;
use mesh_server::config::{Config, LogFormat, Sources};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Session;
use crate::args::ServeArgs;
use crate::exit::Exit;
use crate::print;
use crate::print::table::{Cell, render};
use crate::print::text::{NOTHING, Paint};

pub(super) async fn serve(session: &Session, args: &ServeArgs) -> Result<Exit, Problem> {
    let mut flags = args.settings();
    flags.extend(state_dir_flag(session));
    let config = Config::resolve(&Sources::of_process(flags, args.config.clone()))?;
    if args.print_config {
        session.printer.data(&config.view(), settings)?;
        return Ok(Exit::Done);
    }
    start_logging(&config)?;
    let state_dir = config.state_dir.clone();
    // Before anybody can find the server: who asks it to end while it starts is heard as well.
    let mut told_to_stop = ToldToStop::listen()?;
    let mut server = Server::start(config).await?;
    print::say(&format!(
        "control plane at {}\nstate and admin token in {}",
        server.url(),
        state_dir.display()
    ));
    tokio::select! {
        () = told_to_stop.wait() => {}
        () = server.wait() => {
            server.shutdown().await;
            return Err(Problem::new(
                "INTERNAL",
                "the control plane ended by itself",
                "look at the lines above, then start it again; nothing that was accepted is lost",
            ));
        }
    }
    print::say("stopping");
    server.shutdown().await;
    Ok(Exit::Done)
}

/// The state directory, when it was said on the command line rather than in the environment, which
/// the server reads itself.
fn state_dir_flag(session: &Session) -> Option<(String, String)> {
    let said = session.global.state_dir.as_ref()?;
    let from_environment = std::env::var_os("SCHEDULEMESH_STATE_DIR");
    let is_flag = from_environment.as_deref() != Some(said.as_os_str());
    is_flag.then(|| ("state-dir".to_owned(), said.to_string_lossy().into_owned()))
}

fn settings(view: &ConfigView, paint: Paint) -> String {
    let rows = view.settings.iter().map(|setting| {
        let value = if setting.value.is_empty() { NOTHING } else { &setting.value };
        vec![Cell::from(&setting.key), Cell::from(value), Cell::from(&setting.origin)]
    });
    render(paint, &["SETTING", "VALUE", "FROM"], rows.collect())
}

fn start_logging(config: &Config) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(|error| {
        Problem::new("CONFIG_INVALID", format!("log-level: {error}"), "say info, or debug")
    })?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(print::wants_colours(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    started.map_err(|error| Problem::new("INTERNAL", format!("no log: {error}"), ""))
}

/// The signals by which a server is told to stop: those that come before it waits for them count too.
struct ToldToStop {
    interrupt: Signal,
    terminate: Signal,
}

impl ToldToStop {
    fn listen() -> Result<Self, Problem> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Problem::new("INTERNAL", format!("signals cannot be received: {error}"), "")
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_for_it_is_heard() {
        let mut told = ToldToStop::listen().unwrap();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &std::process::id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        told.wait().await;
    }
}
