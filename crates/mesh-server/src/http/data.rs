//! Routes that carry bytes: results, blobs, code.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use mesh_api::CODE_MAX;
use mesh_api::convert;
use mesh_api::http_client::OUTCOME_HEADER;
use mesh_api::package::PACKAGE_MAX;
use mesh_api::problem::Problem;
use mesh_api::v1::BlobView;
use mesh_core::Mesh;
use mesh_core::model::id::TaskId;
use mesh_core::model::task::{BlobId, Data, Phase};
use mesh_store::Side;

use super::App;
use super::failure::{Answer, Name, whole};
use super::tasks::Wanted;
use super::view;
use crate::blobs::BlobWriter;
use crate::clients::code_too_large;

/// Bytes that are read from a blob at a time: all that one download keeps in memory.
const PIECE: usize = 256 << 10;

/// What a task returned, as the bytes that its worker wrote: the pickle of its value, or, for a
/// failed task, a MessagePack record of the failure. The outcome is in a header.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/result", tag = "tasks", operation_id = "task_result",
    params(("id" = String, Path)),
    responses((status = 200, description = "The bytes", body = [u8],
               content_type = "application/octet-stream",
               headers(("x-schedulemesh-outcome" = String,
                        description = "`succeeded`, `failed` or `cancelled`"))),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn result(State(app): State<App>, Name(id): Name) -> Answer<Response> {
    let wanted = Wanted::read(&id)?;
    let (task, outcome, data) = app.handle.read(move |mesh, _now| ended(mesh, &wanted)).await??;
    let mut response = match data {
        Data::None => octets(Body::empty(), 0),
        Data::Inline(size) => match app.handle.data(task, Side::Result).await? {
            Some(bytes) => octets(Body::from(bytes), u64::from(size)),
            None => return Err(gone(task).into()),
        },
        Data::Blob(id, _size) => blob_body(&app, id).await?,
    };
    response.headers_mut().insert(OUTCOME_HEADER, HeaderValue::from_static(outcome));
    Ok(response)
}

fn ended(mesh: &Mesh, wanted: &Wanted) -> Result<(TaskId, &'static str, Data), Problem> {
    let task = wanted.find(mesh)?;
    let word = view::phase_word(&task.phase);
    match &task.phase {
        Phase::Ended(end) => Ok((task.id, word, end.result)),
        _ => Err(Problem::new(
            "NOT_ENDED",
            format!("task {} has not ended, it is {word}", task.id),
            format!("wait for it with GET /v1/tasks/{}/wait", task.id),
        )),
    }
}

/// The record went between two looks at it.
fn gone(task: TaskId) -> Problem {
    (&mesh_core::Rejection::UnknownTask(task)).into()
}

/// Store bytes that are too many for a JSON body. They are kept for an hour, and then for as long
/// as a task refers to them.
#[utoipa::path(
    put, path = "/v1/blobs", tag = "data",
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, description = "Its id and size", body = BlobView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn put_blob(State(app): State<App>, request: Request) -> Answer<Json<BlobView>> {
    let writer = app.handle.blobs().create().await?;
    let (id, size) = received(writer, request, u64::MAX).await?.finish().await?;
    Ok(Json(BlobView { id: convert::blob_text(id), size }))
}

/// The bytes of a blob.
#[utoipa::path(
    get, path = "/v1/blobs/{id}", tag = "data", params(("id" = String, Path)),
    responses((status = 200, description = "The bytes", body = [u8],
               content_type = "application/octet-stream"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn get_blob(State(app): State<App>, Name(id): Name) -> Answer<Response> {
    Ok(blob_body(&app, convert::blob_id(&id)?).await?)
}

/// Store a package under the first 32 hexadecimal digits of the BLAKE3 digest of its bytes: a folder
/// that runtime environments name as `schedulemesh://ID/SIZE/NAME`. It is kept for an hour, and then for as long
/// as a cluster, or a task that has not ended, names it.
#[utoipa::path(
    put, path = "/v1/packages/{id}", tag = "data",
    params(("id" = String, Path, description = "32 hexadecimal digits")),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, description = "Its id and size", body = BlobView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn put_package(
    State(app): State<App>,
    Name(id): Name,
    request: Request,
) -> Answer<Json<BlobView>> {
    let id = convert::blob_id(&id)?;
    let writer = app.handle.blobs().create().await?;
    let (id, size) = received(writer, request, PACKAGE_MAX).await?.finish_package(id).await?;
    mesh_fail::pass("http.package.after_keep");
    Ok(Json(BlobView { id: convert::blob_text(id), size }))
}

/// Whether a package is here. If so, it is kept for another hour.
#[utoipa::path(
    get, path = "/v1/packages/{id}", tag = "data", params(("id" = String, Path)),
    responses((status = 200, description = "Its id and size", body = BlobView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn get_package(State(app): State<App>, Name(id): Name) -> Answer<Json<BlobView>> {
    let id = convert::blob_id(&id)?;
    let size = app.handle.blobs().claim(id).await?;
    Ok(Json(BlobView { id: convert::blob_text(id), size }))
}

/// Writes a body into a blob, as far as it is not too large.
async fn received(
    mut writer: BlobWriter,
    request: Request,
    size_max: u64,
) -> Result<BlobWriter, Problem> {
    let mut pieces = request.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let message = format!("the upload broke after {} bytes: {error}", writer.size());
            Problem::new("INVALID", message, "upload it again")
        });
        writer.write(&piece?).await?;
        if writer.size() > size_max {
            let message =
                format!("the package has more than the {size_max} bytes that are allowed");
            return Err(Problem::new("TOO_LARGE", message, "leave out files with `excludes`"));
        }
    }
    Ok(writer)
}

async fn blob_body(app: &App, id: BlobId) -> Result<Response, Problem> {
    let reader = app.handle.blobs().read(id, 0).await?;
    let size = reader.size();
    let pieces = stream::try_unfold(reader, |mut reader| async move {
        let piece = reader.next(PIECE).await?;
        Ok::<Option<(Bytes, _)>, Problem>((!piece.is_empty()).then_some((piece, reader)))
    });
    Ok(octets(Body::from_stream(pieces), size))
}

fn octets(body: Body, size: u64) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(size)),
    ];
    (headers, body).into_response()
}

/// Store pickled code under the BLAKE3 digest of its bytes, before tasks refer to it.
#[utoipa::path(
    put, path = "/v1/code/{digest}", tag = "data",
    params(("digest" = String, Path, description = "64 hexadecimal digits")),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 204, description = "It is stored"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn put_code(
    State(app): State<App>,
    Name(digest): Name,
    request: Request,
) -> Answer<StatusCode> {
    let said = convert::digest(&digest)?;
    let code = whole(request, &()).await?;
    if code.len() > CODE_MAX {
        return Err(code_too_large(code.len()).into());
    }
    let found = convert::digest_of(&code);
    if found != said {
        let message = format!("the digest of the {} bytes is {found}, not {said}", code.len());
        return Err(Problem::new("INVALID", message, "send the bytes whole and unchanged").into());
    }
    mesh_fail::pass("http.code.before_keep");
    app.handle.put_code(vec![(said, code)]).await?;
    mesh_fail::pass("http.code.after_keep");
    Ok(StatusCode::NO_CONTENT)
}
