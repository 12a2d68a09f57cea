//! The table of codes, by topic and then by name.

use super::{Entry, Topic};

const fn entry(topic: Topic, code: &'static str, what: &'static str, fix: &'static str) -> Entry {
    Entry { code, topic, what, fix }
}

/// Every code there is.
pub const ENTRIES: &[Entry] = &[
    entry(
        Topic::Error,
        "ACTOR_ENDED",
        "A method was called on an actor that has ended: it was cancelled, its process died, or its \
         cluster was lost.",
        "Look at the actor with `schedulemesh describe`, then start it again.",
    ),
    entry(
        Topic::Error,
        "AGENT_UNREACHABLE",
        "The agent of the cluster did not answer a question, such as for a log. The work itself is \
         not affected.",
        "Look at `schedulemesh cluster ls`; ask again when the cluster's link is `ready`.",
    ),
    entry(
        Topic::Error,
        "CANCELLED",
        "The task was cancelled, so there is no result.",
        "Submit it again, if it is still wanted.",
    ),
    entry(
        Topic::Error,
        "CANNOT_LISTEN",
        "The control plane cannot listen where it was told to: the address is in use, or is not one of \
         this machine.",
        "Stop what listens there, or say another --listen; port 0 picks a free one.",
    ),
    entry(
        Topic::Error,
        "CLIENT_CLOSED",
        "The client was closed, or its process is ending, before this was done. What was accepted \
         goes on.",
        "Connect again, and find the task with `client.get_task(id)`.",
    ),
    entry(
        Topic::Error,
        "CLUSTER_BUSY",
        "The cluster can't be removed, because tasks are assigned to it.",
        "Drain it with `schedulemesh cluster drain NAME` and wait, or remove it with --force: what \
         runs there then counts as lost.",
    ),
    entry(
        Topic::Error,
        "CLUSTER_EXISTS",
        "A cluster of that name is registered, with other settings.",
        "Change it with `schedulemesh cluster add --replace`, or choose another name.",
    ),
    entry(
        Topic::Error,
        "CLUSTER_TAKEN",
        "Another agent serves this cluster. There is one agent for each cluster.",
        "Stop the other agent. If it died without a word, its place is free after the heartbeat \
         time.",
    ),
    entry(
        Topic::Error,
        "CONFIG_INVALID",
        "The configuration has mistakes. All of them are listed, each with its file and line, variable or \
         flag.",
        "Correct what is listed; `schedulemesh serve --print-config` shows each value and its \
         origin.",
    ),
    entry(
        Topic::Error,
        "CONFIGURATION",
        "What a program was told about clusters or settings cannot be used.",
        "The message names the file, line or argument.",
    ),
    entry(
        Topic::Error,
        "CURSOR_COMPACTED",
        "The event stream was asked to go on after an event that is no longer kept, so there would \
         be a hole.",
        "Read the present state (`GET /v1/tasks`), then follow the stream from the sequence number \
         that the answer of `GET /ready` gives.",
    ),
    entry(
        Topic::Error,
        "FORBIDDEN",
        "The token is valid, but not for this: the token of a cluster's agent opens that cluster's \
         link and nothing else. The same is said when the request names a host that this server is \
         not known by.",
        "Use the admin token; for a host name of your own, add it to allowed-hosts.",
    ),
    entry(
        Topic::Error,
        "FORGOTTEN",
        "The record of the task was given up before its result was fetched: ended tasks are kept \
         for a limited time.",
        "Fetch results sooner, or raise the setting `retention`.",
    ),
    entry(
        Topic::Error,
        "FORKED",
        "The client was used in a process that was forked from the one that made it. Its threads \
         and its connection do not survive that.",
        "Call `schedulemesh.connect()` in the child process.",
    ),
    entry(
        Topic::Error,
        "INFEASIBLE",
        "No registered cluster could ever run this as it was asked for, however long it waited. The \
         details say for each cluster what is missing.",
        "Ask for less, register a cluster that fits, or say --wait-for-growth to queue it anyway.",
    ),
    entry(
        Topic::Error,
        "INSECURE_BIND",
        "The control plane was told to listen on a network address without TLS, where anybody on \
         the way could read the token.",
        "Give it a certificate (--tls-cert, --tls-key), listen on a loopback address, or accept the \
         risk with --insecure-bind.",
    ),
    entry(
        Topic::Error,
        "INTERNAL",
        "The control plane ran into a mistake of its own. Nothing that was accepted is lost.",
        "Look at the server's log around that time, and report it.",
    ),
    entry(
        Topic::Error,
        "INVALID",
        "A request, a file or a setting says something that cannot be. The message names the field \
         and what was expected.",
        "Correct the field that is named. All mistakes are listed at once.",
    ),
    entry(
        Topic::Error,
        "KEY_CONFLICT",
        "The idempotency key was used before, for a submission that was not the same.",
        "Use a new key, or submit exactly what was submitted before.",
    ),
    entry(
        Topic::Error,
        "KEY_EXPIRED",
        "The idempotency key is older than the records that are kept, so nobody can say whether it \
         was used.",
        "Look whether the work was done, then submit it with a new key.",
    ),
    entry(
        Topic::Error,
        "NO_BACKUP",
        "The directory is no complete backup: nobody made one there, or it was interrupted.",
        "Name a directory that `schedulemesh backup` has made; one that ends in .unfinished is none.",
    ),
    entry(
        Topic::Error,
        "NO_CLUSTER",
        "No cluster is registered, or none is healthy.",
        "See `schedulemesh cluster ls`, or register one with `schedulemesh cluster add`.",
    ),
    entry(
        Topic::Error,
        "NO_RAY",
        "A local Ray cluster was to be started, and Ray is not installed beside this Python.",
        "Install it with `pip install 'schedulemesh[agent]'`, or connect to a control plane elsewhere.",
    ),
    entry(
        Topic::Error,
        "NO_SUCH_ROUTE",
        "The server has no such route, or not with that method.",
        "See /openapi.json of the server for the routes that it has.",
    ),
    entry(
        Topic::Error,
        "NOT_AN_ACTOR",
        "A method was called on a task that is not an actor.",
        "Call methods on the id that an actor's submission returned.",
    ),
    entry(
        Topic::Error,
        "NOT_EMPTY",
        "A backup or a state directory would be written where there is something already.",
        "Name a directory that is not there yet, or move that one away.",
    ),
    entry(
        Topic::Error,
        "NOT_ENDED",
        "The result was asked for before the task ended.",
        "Wait with `schedulemesh wait`, then ask again.",
    ),
    entry(
        Topic::Error,
        "NOT_FOUND",
        "What was asked for is not there.",
        "Check the name or id; ended tasks are kept for a limited time.",
    ),
    entry(
        Topic::Error,
        "OVERLOADED",
        "More requests wait for the control plane than it accepts at once. Nothing was accepted.",
        "Try again after the time that the answer gives; the SDK does so by itself.",
    ),
    entry(
        Topic::Error,
        "POLICY_FAILED",
        "A placement policy of the program could not be evaluated.",
        "The message names the policy and what it raised.",
    ),
    entry(
        Topic::Error,
        "QUEUE_FULL",
        "The queue holds as many tasks as it may. The submission was refused, not dropped.",
        "Submit again later, or raise queue-max.",
    ),
    entry(
        Topic::Error,
        "STATE_DIR_IN_USE",
        "Another control plane runs on this state directory.",
        "Stop it first, or say another --state-dir.",
    ),
    entry(
        Topic::Error,
        "STATE_DIR_UNUSABLE",
        "The state directory cannot be made or used: it belongs to somebody else, others may read it, or \
         what is in it is not ours.",
        "Mend what the message names, or say another --state-dir.",
    ),
    entry(
        Topic::Error,
        "STORE_DAMAGED",
        "The journal or the snapshot is not what was written. No server starts on it, so that nothing wrong is served.",
        "See `schedulemesh doctor` for the extent, and restore a backup with `schedulemesh restore`.",
    ),
    entry(
        Topic::Error,
        "STORE_FAILED",
        "The disk refused to write or to confirm a write. The control plane goes on answering \
         questions, and accepts nothing until it is started again.",
        "Mend the disk, then start the control plane again; it checks what it finds.",
    ),
    entry(
        Topic::Error,
        "STORE_FULL",
        "There is no room for the state on the disk. Nothing that was accepted is lost.",
        "Free some room; work is accepted again without a restart.",
    ),
    entry(
        Topic::Error,
        "TASK_FAILED",
        "The task failed; more is not known.",
        "See `schedulemesh describe` and `schedulemesh logs`.",
    ),
    entry(
        Topic::Error,
        "TIMED_OUT",
        "An answer did not come in time. What was asked for may or may not have happened.",
        "Ask for the state of the task or the cluster; repeating a submission under its key is \
         safe.",
    ),
    entry(
        Topic::Error,
        "TLS_UNUSABLE",
        "The certificate or its key cannot be read, or they do not belong together.",
        "Give the chain and the key as PEM files with --tls-cert and --tls-key.",
    ),
    entry(
        Topic::Error,
        "TOO_LARGE",
        "A request is larger than the server accepts.",
        "Send large arguments as a blob (the SDK does so by itself), or raise body-max.",
    ),
    entry(
        Topic::Error,
        "UNAUTHENTICATED",
        "The request showed no token, or one that the server does not know.",
        "Say SCHEDULEMESH_TOKEN, or run it as the user who can read STATE_DIR/admin.token.",
    ),
    entry(
        Topic::Error,
        "UNAVAILABLE",
        "No control plane answers there, or it is starting or ending.",
        "Start one with `schedulemesh serve`, or say where it is with --url or SCHEDULEMESH_URL.",
    ),
    entry(
        Topic::Error,
        "UNKNOWN_BLOB",
        "There is no blob of that id: it was never uploaded whole, or was given up because no task \
         refers to it.",
        "Upload it again.",
    ),
    entry(
        Topic::Error,
        "UNKNOWN_CLUSTER",
        "No cluster of that name is registered.",
        "See `schedulemesh cluster ls`, or register it with `schedulemesh cluster add`.",
    ),
    entry(
        Topic::Error,
        "UNKNOWN_CODE",
        "A task refers to a function or class whose pickle the server does not have.",
        "Upload it first with `PUT /v1/code/{digest}`; the SDK does so by itself.",
    ),
    entry(
        Topic::Error,
        "UNKNOWN_TASK",
        "There is no task of that id. Records of ended tasks are kept for a limited time.",
        "Check the id with `schedulemesh ps --all`; see the setting `retention`.",
    ),
    entry(
        Topic::Error,
        "UNPICKLABLE",
        "A function, an argument or a result cannot be pickled, so it cannot travel.",
        "The message names the object. Make it where it runs instead of sending it: locks, \
         connections and handles never travel.",
    ),
    entry(
        Topic::Error,
        "UPGRADE_NEEDED",
        "The two sides speak different versions of the protocol.",
        "Install the same version of schedulemesh on both sides.",
    ),
    entry(
        Topic::Verdict,
        "BREAKER_OPEN",
        "The cluster failed to start work too often in a row, so it gets none for a while.",
        "See what failed with `schedulemesh ps --all --cluster NAME`; it is tried again by itself.",
    ),
    entry(
        Topic::Verdict,
        "BREAKER_PROBING",
        "After a series of failures the cluster is being tried with one task.",
        "Wait for that task; if it starts, others follow at once.",
    ),
    entry(
        Topic::Verdict,
        "DRAINING",
        "The cluster was told to take no new work.",
        "`schedulemesh cluster drain NAME --undo`",
    ),
    entry(
        Topic::Verdict,
        "FITS",
        "The cluster has room for the task now. Among those that fit, the highest score wins.",
        "Nothing has to be done.",
    ),
    entry(
        Topic::Verdict,
        "JOB_INTERVAL",
        "The cluster started a job a moment ago, and its owner wants a pause between two.",
        "Wait, or lower --job-interval of the cluster.",
    ),
    entry(
        Topic::Verdict,
        "LABEL_UNMET",
        "No node of the cluster has labels that satisfy the rule.",
        "See `schedulemesh cluster show NAME` for the labels that there are.",
    ),
    entry(
        Topic::Verdict,
        "NO_ROOM",
        "A node of the cluster is large enough, but not free enough now.",
        "Wait; or ask for less; or give the task a higher priority than those before it.",
    ),
    entry(
        Topic::Verdict,
        "NOT_READY",
        "The agent of the cluster is not linked, so nothing can be sent there.",
        "See `schedulemesh cluster ls` and `schedulemesh cluster test NAME`.",
    ),
    entry(
        Topic::Verdict,
        "OTHER_PREFERRED",
        "The task names another cluster, which is healthy and only full at present.",
        "Wait, or submit it without --cluster.",
    ),
    entry(
        Topic::Verdict,
        "OVER_UTILISED",
        "The cluster is used above the share at which its owner wants no new work.",
        "Wait, or raise --max-utilisation of the cluster.",
    ),
    entry(
        Topic::Verdict,
        "PYTHON_DIFFERS",
        "The cluster runs another minor version of Python than the one that pickled the task. \
         Pickled code does not travel between them.",
        "Submit from the same minor version, or submit a job, which is not pickled.",
    ),
    entry(
        Topic::Verdict,
        "TAG_AVOIDED",
        "The cluster has a tag that the task avoids.",
        "Leave the tag out of --avoid-tag, if the cluster should do.",
    ),
    entry(
        Topic::Verdict,
        "TAG_MISSING",
        "The cluster lacks a tag that the task requires.",
        "Use --prefer-tag instead of --tag, if it is a wish and not a need.",
    ),
    entry(
        Topic::Verdict,
        "TASKS_MAX",
        "The cluster runs as many tasks as its owner allows.",
        "Wait, or raise --max-tasks of the cluster.",
    ),
    entry(
        Topic::Verdict,
        "TOO_BIG",
        "No node of the cluster is large enough, even when it is empty.",
        "Ask for less: the message names what the best node has.",
    ),
    entry(
        Topic::State,
        "ASSIGNED",
        "It was given room on a cluster, and is about to start there.",
        "Nothing has to be done. Workers with a new runtime environment take longer to start.",
    ),
    entry(
        Topic::State,
        "DELAYED",
        "Its last attempt failed, and it waits for the time of the next.",
        "See `schedulemesh describe` for the failure; cancel it if trying again cannot help.",
    ),
    entry(
        Topic::State,
        "ENDED",
        "It is over, and changes no more.",
        "See `schedulemesh describe`.",
    ),
    entry(
        Topic::State,
        "NO_CLUSTERS",
        "No cluster is registered, so there is nowhere to go.",
        "Register one with `schedulemesh cluster add`; the task starts by itself.",
    ),
    entry(
        Topic::State,
        "QUEUED",
        "It waits for room. Tasks of higher priority go first, and of equal priority the older \
         ones.",
        "See what each cluster says with `schedulemesh explain`.",
    ),
    entry(Topic::State, "RUNNING", "Its cluster says that it runs.", "Nothing has to be done."),
    entry(
        Topic::State,
        "STOPPING",
        "It was told to stop, and its cluster has not confirmed it yet. It still holds its room.",
        "Wait: after its time of grace it is killed.",
    ),
    entry(
        Topic::State,
        "UNREACHABLE",
        "Its cluster cannot be heard. It may well run there, so nothing is started elsewhere yet.",
        "See `schedulemesh cluster ls`. When the cluster counts as lost, the task is replaced, waits \
         or fails, as it says.",
    ),
    entry(
        Topic::State,
        "WAITS_FOR_ACTOR",
        "It is a call on an actor that is not up yet, or that answers earlier calls first.",
        "Look at the actor with `schedulemesh explain`.",
    ),
    entry(
        Topic::Cause,
        "ACTOR_ENDED",
        "The actor that it calls ended before it answered.",
        "Look at the actor with `schedulemesh describe`, then start it again.",
    ),
    entry(
        Topic::Cause,
        "CLUSTER_LOST",
        "The agent that ran it, or the whole cluster, was lost. Whether it ran to its end is not \
         known.",
        "It is retried elsewhere as its retries allow. If it must not run twice, give it none.",
    ),
    entry(
        Topic::Cause,
        "NOT_STARTED",
        "Its worker, runtime environment, actor or job could not be started.",
        "The message says what Ray said. It is retried as its retries allow, and failures in a row open \
         the cluster's breaker.",
    ),
    entry(
        Topic::Cause,
        "RAISED",
        "Its own code raised an exception, or its job ended with an error.",
        "The message names the exception; the SDK raises it with the remote traceback. It is tried again \
         only where retries after exceptions were asked for.",
    ),
    entry(
        Topic::Cause,
        "TIMED_OUT",
        "One attempt ran longer than its timeout, and was stopped.",
        "Raise the timeout, or make it shorter.",
    ),
    entry(
        Topic::Cause,
        "UNREADABLE",
        "The worker could not unpickle it, or could not pickle its result.",
        "The message names the object. A module that is missing on the cluster belongs into its runtime \
         environment.",
    ),
    entry(
        Topic::Cause,
        "WORKER_DIED",
        "The process that ran it died: it was killed, ran out of memory or crashed.",
        "The message holds what Ray saw. It is retried as its retries allow; ask for more memory if that \
         was the reason.",
    ),
];
