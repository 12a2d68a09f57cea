//! Who may do what. There are two kinds of token: the one of whoever administers the server, and
//! one for the agent of each cluster, derived from the secret of the state directory, so that
//! nothing needs to be stored for it.

use mesh_api::problem::Problem;
use mesh_core::model::id::ClusterName;
use subtle::ConstantTimeEq as _;

/// What an agent token is derived under. Another purpose would need another text.
const AGENT_CONTEXT: &str = "schedulemesh 2026-11 agent token";

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Whoever administers the server: may do everything.
    Admin,
    /// The agent of this cluster: may open its link and nothing else.
    Agent(ClusterName),
}

/// The tokens that a server knows. Never prints them.
#[derive(Clone)]
pub struct Tokens {
    admin: blake3::Hash,
    agents: [u8; 32],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// From the admin token and the secret of a state directory.
    pub fn new(admin: &str, secret: &str) -> Self {
        let agents = blake3::derive_key(AGENT_CONTEXT, secret.as_bytes());
        Self { admin: blake3::hash(admin.as_bytes()), agents }
    }

    /// The token of a cluster's agent.
    pub fn agent(&self, cluster: &ClusterName) -> String {
        let mac = blake3::keyed_hash(&self.agents, cluster.as_str().as_bytes());
        format!("sma_{}_{}", escape(cluster.as_str()), mac.to_hex())
    }

    /// A few characters that stand for this server and a cluster, for names of things that other
    /// servers must not take for theirs.
    pub fn mark(&self, cluster: &ClusterName) -> String {
        let mac = blake3::keyed_hash(&self.agents, format!("mark {cluster}").as_bytes());
        mac.to_hex().chars().take(8).collect()
    }

    /// Who holds this token; `None` for nobody. Takes the same time for every wrong token of one form.
    pub fn who(&self, token: &str) -> Option<Claim> {
        let Some(rest) = token.strip_prefix("sma_") else {
            let given = blake3::hash(token.as_bytes());
            let same = given.as_bytes().ct_eq(self.admin.as_bytes());
            return bool::from(same).then_some(Claim::Admin);
        };
        let (cluster, _mac) = rest.rsplit_once('_')?;
        let cluster: ClusterName = unescape(cluster)?.parse().ok()?;
        let right = blake3::hash(self.agent(&cluster).as_bytes());
        let given = blake3::hash(token.as_bytes());
        let same = given.as_bytes().ct_eq(right.as_bytes());
        bool::from(same).then_some(Claim::Agent(cluster))
    }
}

impl Claim {
    /// Whether the holder may do what only the administrator may.
    pub fn require_admin(&self) -> Result<(), Problem> {
        match self {
            Self::Admin => Ok(()),
            Self::Agent(cluster) => Err(Problem::new(
                "FORBIDDEN",
                format!(
                    "the token of cluster {cluster}'s agent may only open the link of that cluster"
                ),
                "use the token in admin.token of the server's state directory",
            )),
        }
    }
}

/// The token in an `Authorization` header.
pub fn bearer(header: Option<&[u8]>) -> Result<&str, Problem> {
    let header = header.ok_or_else(|| unauthenticated("this needs a token"))?;
    let text = std::str::from_utf8(header).unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        Ok(token.trim())
    } else {
        Err(unauthenticated("the Authorization header is not of the form `Bearer TOKEN`"))
    }
}

/// The problem of a caller that is nobody.
pub fn unauthenticated(what: &str) -> Problem {
    Problem::new(
        "UNAUTHENTICATED",
        what,
        "send `Authorization: Bearer TOKEN` with the token in admin.token of the server's state \
         directory; set SCHEDULEMESH_TOKEN elsewhere",
    )
}

/// Headers hold ASCII, names of clusters any letter.
fn escape(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new("smt_admin", "0123")
    }

    #[test]
    fn a_token_is_who_it_was_made_for_and_nobody_else() {
        for name in ["a", "with_under_score", "east/rack-1:b", "北京"] {
            let cluster: ClusterName = name.parse().unwrap();
            let token = tokens().agent(&cluster);
            assert!(token.is_ascii(), "{token}");
            assert_eq!(tokens().who(&token), Some(Claim::Agent(cluster)));
        }
        assert_eq!(tokens().who("smt_admin"), Some(Claim::Admin));
    }

    #[test]
    fn what_is_no_token_is_nobody() {
        let agent = tokens().agent(&"a".parse().unwrap());
        let mut forged = agent.replace("sma_a_", "sma_b_");
        assert_eq!(tokens().who(&forged), None);
        forged.truncate(20);
        for bad in ["", "smt_", "smt_admin ", "sma_", "sma_a_", "sma_%zz_00", "sma_%f_00", &forged]
        {
            assert_eq!(tokens().who(bad), None, "{bad:?}");
        }
        let others = Tokens::new("smt_admin", "4567");
        assert_eq!(others.who(&agent), None);
    }

    #[test]
    fn headers_are_read_as_clients_write_them() {
        assert_eq!(bearer(Some(b"Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer(Some(b"bearer  abc ")).unwrap(), "abc");
        for bad in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"\xff\xfe"] {
            assert_eq!(bearer(Some(bad)).unwrap_err().code, "UNAUTHENTICATED");
        }
        assert_eq!(bearer(None).unwrap_err().message, "this needs a token");
    }

    #[test]
    fn an_agent_is_no_administrator_and_is_told_so() {
        Claim::Admin.require_admin().unwrap();
        let problem = Claim::Agent("a".parse().unwrap()).require_admin().unwrap_err();
        assert_eq!(problem.code, "FORBIDDEN");
    }
}
