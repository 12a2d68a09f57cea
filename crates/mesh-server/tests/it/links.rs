//! Links that break, that are taken over, and that are refused.

use mesh_api::agent::{FromAgent, ReportFrame, ReportItem, ToAgent};
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::task::Outcome;
use mesh_core::model::time::Span;
use mesh_store::Side;

use crate::agent::{Agent, finished, held, hello};
use crate::support::{
    add_cluster, add_cluster_as, end_of, put_code, serve, spec, submit, submit_function, task,
    until,
};

#[tokio::test]
async fn a_report_sent_again_after_a_broken_link_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit_function(&handle, "k", "x").await;
    let start = agent.start().await;
    agent.report_durably(&start, finished("first")).await;
    end_of(&handle, id).await;
    let hello = agent.vanish();

    let mut agent = Agent::link_as(&server, hello).await.unwrap();
    assert_eq!(agent.welcome.acked, 1, "the same life of the agent goes on counting");
    let what = finished("second");
    let item = ReportItem { task: start.task, attempt: start.attempt, what };
    let seq = handle.status().seq;
    agent.say(&FromAgent::Report(ReportFrame { seq: 1, items: vec![item] })).await;
    let next = submit_function(&handle, "k2", "y").await;
    agent.echo(1).await;
    end_of(&handle, next).await;
    let result = handle.data(id, Side::Result).await.unwrap().unwrap();
    assert_eq!(result.as_ref(), b"first");
    let mut events = handle.events(seq).await.unwrap();
    let entry = events.next().await.unwrap();
    let late = |event: &mesh_core::Event| matches!(event, mesh_core::Event::LateReport(..));
    assert!(!entry.events.iter().any(late), "it was not even taken in");
    server.shutdown().await;
}

#[tokio::test]
async fn what_an_agent_never_received_is_sent_again_under_the_same_number() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit_function(&handle, "k", "x").await;
    let first = agent.start().await;
    let mut agent = Agent::link_as(&server, agent.vanish()).await.unwrap();
    let again = agent.start().await;
    assert_eq!((again.task, again.attempt), (first.task, first.attempt));
    assert_eq!(again.payload, first.payload, "with its arguments, from the store");
    agent.report(&again, finished("x")).await;
    assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
    server.shutdown().await;
}

#[tokio::test]
async fn a_lost_cluster_is_replaced_and_its_late_result_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    let spec = ClusterSpec { lost_after: Span::from_millis(50), ..ClusterSpec::default() };
    add_cluster_as(&handle, "a", spec).await;
    add_cluster(&handle, "b").await;
    put_code(&handle).await;
    let mut lost = Agent::link(&server, "a").await;
    let id = submit_function(&handle, "k", "x").await;
    let first = lost.start().await;
    lost.report_durably(&first, mesh_api::agent::Happened::Started).await;
    let mut hello = lost.vanish();

    let mut other = Agent::link(&server, "b").await;
    let second = other.start().await;
    assert_eq!((second.task, second.attempt), (first.task, first.attempt + 1));

    hello.held = vec![held(&first)];
    let mut back = Agent::link_as(&server, hello).await.unwrap();
    let stop = back.stop().await;
    assert_eq!((stop.task, stop.attempt), (first.task, first.attempt), "told to end it");
    back.report_durably(&first, finished("late")).await;
    other.report_durably(&second, finished("right")).await;
    assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
    let result = handle.data(id, Side::Result).await.unwrap().unwrap();
    assert_eq!(result.as_ref(), b"right");
    server.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_unlinked() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    let agent = Agent::link(&server, "a").await;
    until(&handle, "the silent agent is suspect", |mesh| {
        mesh.clusters().all(|cluster| cluster.link.word() == "suspect")
    })
    .await;
    drop(agent);
    server.shutdown().await;
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    let refused = |hello| async {
        let problem = Agent::link_as(&server, hello).await.err().expect("it is refused");
        (problem.code, problem.message)
    };
    let unknown = refused(hello("nowhere", 1.0)).await;
    assert_eq!(unknown.0, "UNKNOWN_CLUSTER");
    assert_eq!(unknown.1, "cluster nowhere is not registered");
    let mut old = hello("a", 1.0);
    old.protocol = 99;
    let old = refused(old).await;
    assert_eq!(old.0, "UPGRADE_NEEDED");
    assert_eq!(
        old.1,
        "the agent (version 0.1.0) speaks link protocol 99, \
         this server (version 0.1.0) speaks 1"
    );
    let mut vague = hello("a", 1.0);
    vague.incarnation = "me".into();
    assert_eq!(refused(vague).await.0, "INVALID");
    let _linked = Agent::link(&server, "a").await;
    let taken = refused(hello("a", 1.0)).await;
    assert_eq!(taken.0, "CLUSTER_TAKEN");
    server.shutdown().await;
}

#[tokio::test]
async fn a_question_reaches_the_agent_and_its_answer_comes_back() {
    use mesh_api::agent::{AskAnswer, Question};
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    let name: mesh_core::model::id::ClusterName = "a".parse().unwrap();
    let nobody = handle.ask_agent(name.clone(), Question::Health, crate::support::PATIENCE).await;
    assert_eq!(nobody.unwrap_err().code, "AGENT_UNREACHABLE");
    let mut agent = Agent::link(&server, "a").await;
    let asked = {
        let handle = handle.clone();
        tokio::spawn(async move {
            handle.ask_agent(name, Question::Health, crate::support::PATIENCE).await
        })
    };
    let Some(ToAgent::Ask(question)) = agent.hear().await else { panic!("a question") };
    assert_eq!(question.what, Question::Health);
    agent.say(&FromAgent::Answer(AskAnswer { id: question.id, result: Ok("fine".into()) })).await;
    assert_eq!(asked.await.unwrap().unwrap(), "fine");
    server.shutdown().await;
}

#[tokio::test]
async fn the_agent_of_a_removed_cluster_is_told_to_stop_and_its_work_goes_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit_function(&handle, "k", "x").await;
    let first = agent.start().await;
    let name: mesh_core::model::id::ClusterName = "a".parse().unwrap();
    let remove = |force| mesh_core::Command::RemoveCluster { name: name.clone(), force };
    let busy = handle.command(remove(false)).await.unwrap_err();
    assert_eq!(busy.message, "cluster a still has 1 tasks");
    handle.command(remove(true)).await.unwrap();
    let stop = agent.stop().await;
    assert_eq!((stop.task, stop.attempt), (first.task, first.attempt));
    let Some(ToAgent::Refused(problem)) = agent.hear().await else { panic!("a reason") };
    assert_eq!(problem.code, "UNKNOWN_CLUSTER");
    assert_eq!(agent.hear().await, None, "the link is closed");
    assert!(!handle.has_agent(&name));
    add_cluster(&handle, "b").await;
    let mut other = Agent::link(&server, "b").await;
    let second = other.start().await;
    assert_eq!((second.task, second.attempt), (first.task, first.attempt + 1));
    other.report(&second, finished("x")).await;
    assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
    server.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_listens_is_dialled_with_its_token_and_dialled_again() {
    use mesh_api::v1::ClusterBody;
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    put_code(&handle).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = dir.path().join("agent.token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let body: ClusterBody = serde_json::from_value(serde_json::json!({
        "name": "a",
        "agent": format!("ws://{}", listener.local_addr().unwrap()),
        "token": format!("file:{}", token.display()),
    }))
    .unwrap();
    let (_name, spec) = mesh_api::convert::cluster(&body).unwrap();
    add_cluster_as(&handle, "a", spec).await;
    let hello = hello("a", 2.0);
    let agent = Agent::answer(&listener, hello.clone(), "Bearer hunter2").await;
    drop(agent);
    let mut agent = Agent::answer(&listener, hello, "Bearer hunter2").await;
    let id = submit_function(&handle, "k", "x").await;
    agent.echo(1).await;
    assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
    server.shutdown().await;
}

#[tokio::test]
async fn the_largest_code_that_is_taken_reaches_its_agent() {
    use mesh_api::v1::WorkBody;
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    for n in 0..3_u8 {
        let code = vec![n; mesh_api::CODE_MAX];
        let digest = mesh_api::convert::digest_of(&code);
        handle.put_code(vec![(digest, code.into())]).await.unwrap();
        let spec = spec(WorkBody::Function { code: digest.to_string() });
        submit(&handle, task(&spec, &format!("k{n}"), "x")).await;
    }
    // A frame of more than FRAME_MAX bytes would end this link, and every one after it.
    let mut agent = Agent::link_as(&server, hello("a", 4.0)).await.unwrap();
    for _ in 0..3 {
        let mesh_api::agent::WorkFrame::Function { code } = agent.start().await.work else {
            panic!("a function")
        };
        assert_eq!(agent.code(&code).map(bytes::Bytes::len), Some(mesh_api::CODE_MAX));
    }
    server.shutdown().await;
}
