//! Clusters: registering, looking, draining, removing.

use mesh_api::problem::Problem;
use mesh_api::v1::ClusterView;

use super::Session;
use crate::args::{AddArgs, ClusterCommand};
use crate::exit::Exit;
use crate::print::{self, views};

pub(super) async fn run(session: &Session, command: ClusterCommand) -> Result<Exit, Problem> {
    let client = session.client()?;
    let printer = session.printer;
    match command {
        ClusterCommand::Ls => {
            let list = client.clusters().await?;
            printer.data(&list, |list, paint| views::clusters(list, paint))?;
        }
        ClusterCommand::Add(args) => add(session, &args).await?,
        ClusterCommand::Show { name } => {
            printer.data(&client.cluster(&name).await?, views::cluster)?;
        }
        ClusterCommand::Rm { name, force } => {
            client.remove_cluster(&name, force).await?;
            print::say(&format!("cluster {name} is forgotten"));
        }
        ClusterCommand::Test { name } => {
            let test = client.test_cluster(&name).await?;
            printer.data(&test, views::cluster_test)?;
            return Ok(if test.ok { Exit::Done } else { Exit::Failed });
        }
        ClusterCommand::Drain { name, undo } => {
            let view = client.drain_cluster(&name, !undo).await?;
            one(session, &view)?;
        }
        ClusterCommand::Token { name } => {
            let token = client.cluster_token(&name).await?;
            printer.data(&token, |token, _paint| token.token.clone())?;
        }
    }
    Ok(Exit::Done)
}

async fn add(session: &Session, args: &AddArgs) -> Result<(), Problem> {
    let client = session.client()?;
    let body = args.body();
    let view = if args.replace {
        client.put_cluster(&body).await?
    } else {
        client.add_cluster(&body).await?
    };
    one(session, &view)?;
    if args.dashboard.is_none() && args.agent.is_none() && view.link != "ready" {
        print::say(&format!(
            "now start its agent on one of its nodes:\n  \
             SCHEDULEMESH_TOKEN=$(schedulemesh cluster token {name}) \\\n      \
             schedulemesh agent --server {url} --cluster {name} --ray-address auto",
            name = args.name,
            url = client.url(),
        ));
    }
    Ok(())
}

fn one(session: &Session, view: &ClusterView) -> Result<(), Problem> {
    session.printer.data(view, |view, paint| views::clusters(std::slice::from_ref(view), paint))
}
