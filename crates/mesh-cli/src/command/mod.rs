//! The commands: each parses nothing and formats nothing, it only asks and hands over.

mod cluster;
mod inspect;
mod recovery;
mod run;
mod serve;
mod submit;
mod wait;

use clap::CommandFactory as _;
use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;

use crate::args::{Cli, Command, Global, WhyArgs};
use crate::exit::Exit;
use crate::print::Printer;
use crate::{codes, context, print};

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Session {
    global: Global,
    printer: Printer,
}

impl Session {
    fn client(&self) -> Result<HttpClient, Problem> {
        context::client(&self.global)
    }
}

/// Carries out one command.
pub async fn run(cli: Cli) -> Result<Exit, Problem> {
    let printer = Printer::new(cli.global.output);
    let session = Session { global: cli.global, printer };
    match cli.command {
        Command::Up(args) => run::up(&session, &args),
        Command::Agent(args) => run::agent(&session, &args),
        Command::Serve(args) => serve::serve(&session, &args).await,
        Command::Submit(args) => submit::submit(&session, &args).await,
        Command::Ps(args) => inspect::ps(&session, &args).await,
        Command::Describe(args) => inspect::describe(&session, &args.task).await,
        Command::Explain(args) => inspect::explain(&session, &args.task).await,
        Command::Logs(args) => inspect::logs(&session, &args).await,
        Command::Wait(args) => wait::wait(&session, &args).await,
        Command::Cancel(args) => inspect::cancel(&session, &args.tasks).await,
        Command::Cluster(command) => cluster::run(&session, command).await,
        Command::Status => inspect::status(&session).await,
        Command::Doctor(_) => recovery::doctor(&session),
        Command::Backup(args) => recovery::backup(&session, &args),
        Command::Restore(args) => recovery::restore(&session, &args),
        Command::Why(args) => why(&session, &args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "schedulemesh", &mut script);
            print::raw(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
        Command::Version => version(&session).await,
    }
}

fn why(session: &Session, args: &WhyArgs) -> Result<Exit, Problem> {
    let entries: Vec<&codes::Entry> = match &args.code {
        None => codes::ENTRIES.iter().collect(),
        Some(code) => codes::find(code).collect(),
    };
    if let (Some(code), []) = (&args.code, entries.as_slice()) {
        return Err(Problem::new(
            "INVALID",
            format!("there is no code {code}"),
            format!("did you mean {}? `schedulemesh why` lists them all", codes::nearest(code)),
        ));
    }
    let data: Vec<_> = entries
        .iter()
        .map(
            |entry| serde_json::json!({ "code": entry.code, "what": entry.what, "fix": entry.fix }),
        )
        .collect();
    session.printer.data(&data, |_data, paint| {
        let blocks = entries.iter().map(|entry| {
            let code = paint.apply(print::text::Style::Strong, entry.code);
            format!("{code}\n  {}\n  fix: {}", entry.what, entry.fix)
        });
        blocks.collect::<Vec<_>>().join("\n\n")
    })?;
    Ok(Exit::Done)
}

async fn version(session: &Session) -> Result<Exit, Problem> {
    let server = match session.client() {
        Ok(client) => client.health().await.ok().map(|health| health.version),
        Err(_no_server) => None,
    };
    let data = serde_json::json!({ "client": env!("CARGO_PKG_VERSION"), "server": server });
    session.printer.data(&data, |_data, _paint| {
        let mine = format!("schedulemesh {}", env!("CARGO_PKG_VERSION"));
        server.map_or(mine.clone(), |server| format!("{mine}\ncontrol plane {server}"))
    })?;
    Ok(Exit::Done)
}
