//! A chain file: its text to what it says, strictly, with the line and column of everything that is wrong. Looks at no other file.

use std::collections::BTreeMap;
use std::sync::Arc;

use podkit_dataplane::http::HttpLimits;
use podkit_dataplane::http2::Http2Limits;
use podkit_dataplane::tls::TlsParams;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{Param, ParamSet as _, Values};
use podkit_foundation::yaml::{
    Findings, Node, Path, Place, Severity, Source, Value, documents, nearest, read,
};

use super::kinds::{Kind, listener_keys, listener_params, tls_keys};
use super::params::ListenerKeys;
use crate::front::{EntranceParams, HostPattern, PathPattern};

/// Listeners, stages and routes in a file, each, at most.
const MOST: usize = 1000;

/// What a file says.
pub(super) struct ChainFile {
    pub(super) listeners: Vec<ListenerSaid>,
    pub(super) stages: BTreeMap<String, StageSaid>,
}

/// A listener and its routes.
pub(super) struct ListenerSaid {
    pub(super) params: EntranceParams,
    /// As written, so that two files can be compared.
    pub(super) said: Said,
    pub(super) routes: Arc<Vec<RouteSaid>>,
}

/// A stage.
pub(super) struct StageSaid {
    pub(super) kind: &'static Kind,
    pub(super) values: Values,
    pub(super) said: Said,
}

/// A route; it has stages, and the last one ends it.
pub(super) struct RouteSaid {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) path: PathPattern,
    pub(super) stages: Vec<String>,
}

/// Keys with their texts.
pub(super) type Said = Vec<(&'static str, Vec<String>)>;

/// Reads a text; `name` stands for the file in the findings. What is returned is whole when the findings have no error.
pub(super) fn parse(name: &str, text: &str, connections: u32) -> (Option<ChainFile>, Findings) {
    let mut findings = Findings::new();
    let file: Arc<str> = Arc::from(name);
    let mut roots = documents(text, &file, &mut findings).into_iter();
    let (root, more) = (roots.next(), roots.next());
    let Some(root) = root.filter(|_| !findings.has_errors()) else {
        if !findings.has_errors() {
            let why = "says nothing; expected listeners, stages and routes";
            findings.add(Severity::Error, Place::whole(name), "", why);
        }
        return (None, findings);
    };
    if let Some(more) = more {
        let place = Source::new(file, Arc::new(more), Path::root()).place(&Path::root());
        let why = "a second document; a chain file is one";
        findings.add(Severity::Error, place, "", why);
        return (None, findings);
    }
    let source = Source::new(file, Arc::new(root), Path::root());
    let mut reader = Reader {
        source: &source,
        findings,
        connections,
        inline: BTreeMap::new(),
    };
    let said = reader.file();
    (said, reader.findings)
}

/// As [`parse`], for bytes.
pub(super) fn parse_bytes(
    name: &str,
    bytes: &[u8],
    connections: u32,
) -> (Option<ChainFile>, Findings) {
    match read::text(bytes) {
        Ok(text) => parse(name, text, connections),
        Err((line, column, why)) => {
            let mut findings = Findings::new();
            let file = Arc::from(name);
            findings.add(Severity::Error, Place { file, line, column }, "", why);
            (None, findings)
        }
    }
}

struct Reader<'a> {
    source: &'a Source,
    findings: Findings,
    connections: u32,
    /// Stages that stand in a route, by the names that they get.
    inline: BTreeMap<String, StageSaid>,
}

impl Reader<'_> {
    fn wrong(&mut self, path: &Path, why: impl Into<String>) {
        let place = self.source.place(path);
        self.findings.add(Severity::Error, place, path, why);
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let found = self.source.find(path).cloned();
        found.filter(|node| node.value != Value::Null)
    }

    fn file(&mut self) -> Option<ChainFile> {
        let top = Path::root();
        let listener: Vec<String> = listener_keys().iter().map(Param::flag).collect();
        let mut known: Vec<&str> = vec!["listeners", "stages", "routes", "tls"];
        known.extend(listener.iter().map(String::as_str));
        self.keys(&top, &known)?;
        let stages = self.stages();
        let at_routes = top.key("routes");
        let shared = self.find(&at_routes).is_some();
        let routes = shared.then(|| Arc::new(self.routes(&at_routes, "", &stages)));
        let paths: Vec<Path> = match self.find(&top.key("listeners")).map(|node| node.value) {
            None => vec![top.clone()],
            Some(Value::Seq(items)) if !items.is_empty() && items.len() <= MOST => {
                for key in known.iter().skip(3) {
                    if self.find(&top.key((*key).to_owned())).is_some() {
                        let why = "can't go with listeners: it belongs to one of them";
                        self.wrong(&top.key((*key).to_owned()), why);
                    }
                }
                (0..items.len())
                    .map(|at| top.item("listeners", at))
                    .collect()
            }
            Some(_) => {
                let why = format!("expected a list of 1 to {MOST} listeners");
                self.wrong(&top.key("listeners"), why);
                Vec::new()
            }
        };
        let mut listeners: Vec<ListenerSaid> = Vec::new();
        for path in &paths {
            let is_top = *path == top;
            let Some(listener) = self.listener(path, is_top, routes.as_ref(), &stages) else {
                continue;
            };
            let mut others = listeners.iter().flat_map(|one| &one.params.listen);
            if let Some(addr) = others.find(|addr| listener.params.listen.contains(addr)) {
                let why = format!("{addr} is another listener's too");
                self.wrong(&path.key("listen"), why);
            }
            listeners.push(listener);
        }
        let used = |name: &String| {
            let mut routes = listeners.iter().flat_map(|one| one.routes.iter());
            routes.any(|route| route.stages.contains(name))
        };
        let idle: Vec<String> = stages.keys().filter(|name| !used(name)).cloned().collect();
        for name in idle {
            let path = top.key("stages").key(name);
            let place = self.source.key_place(&path);
            let why = "no route goes there";
            self.findings.add(Severity::Warning, place, &path, why);
        }
        let mut all = stages;
        all.append(&mut self.inline);
        (!self.findings.has_errors()).then_some(ChainFile {
            listeners,
            stages: all,
        })
    }

    /// What is at `path` is an object with these keys only.
    fn keys(&mut self, path: &Path, known: &[&str]) -> Option<Vec<String>> {
        let entries = match self.source.find(path).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            other => {
                let found = other.cloned().unwrap_or(Value::Null);
                let mark = podkit_foundation::yaml::Mark::default();
                let found = Node { mark, value: found }.describe();
                self.wrong(path, format!("expected an object, found {found}"));
                return None;
            }
        };
        let mut right = Vec::new();
        for entry in entries {
            if known.contains(&entry.key.as_str()) {
                right.push(entry.key.clone());
                continue;
            }
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            let place = self.source.at(entry.mark);
            let (path, why) = (path.key(entry.key.clone()), format!("unknown key; {hint}"));
            self.findings.add(Severity::Error, place, path, why);
        }
        Some(right)
    }

    /// The texts of `keys` in the object at `path`.
    fn said(&mut self, path: &Path, keys: &[Param]) -> Said {
        let mut said = Vec::new();
        for param in keys {
            let at = path.key(param.flag());
            if self.source.find(&at).is_none() {
                continue;
            }
            let texts = self.texts(&at, param);
            if !texts.is_empty() {
                said.push((param.field, texts));
            }
        }
        said
    }

    fn texts(&mut self, path: &Path, param: &Param) -> Vec<String> {
        let Some(node) = self.source.find(path).cloned() else {
            return Vec::new();
        };
        let expected = || format!("expected {}", param.expectation());
        match &node.value {
            Value::Seq(items) if param.many => (0..items.len())
                .flat_map(|at| {
                    let path = path.index(at);
                    self.text(&path, &items[at], param)
                })
                .collect(),
            Value::Seq(_) => {
                self.wrong(
                    path,
                    format!("takes one value, found a list; {}", expected()),
                );
                Vec::new()
            }
            _ => self.text(path, &node, param).into_iter().collect(),
        }
    }

    fn text(&mut self, path: &Path, node: &Node, param: &Param) -> Option<String> {
        match &node.value {
            Value::Str(text)
            | Value::Bool(_, text)
            | Value::Int(_, text)
            | Value::Float(_, text) => Some(text.clone()),
            // A structured parameter: pairs, as a flag has them.
            Value::Map(entries) if param.type_name == "rule" => {
                let mut pairs = Vec::new();
                for entry in entries {
                    let path = path.key(entry.key.clone());
                    let text = match &entry.node.value {
                        Value::Str(text)
                        | Value::Bool(_, text)
                        | Value::Int(_, text)
                        | Value::Float(_, text) => text.clone(),
                        Value::Seq(items) => {
                            let words = items.iter().map(|item| item.as_str().unwrap_or_default());
                            words.collect::<Vec<_>>().join(",")
                        }
                        _ => String::new(),
                    };
                    if text.is_empty() || text.contains([' ', ';']) {
                        self.wrong(&path, "expected a text without spaces and semicolons");
                        return None;
                    }
                    pairs.push(format!("{}={text}", entry.key));
                }
                Some(pairs.join(" "))
            }
            _ => {
                let why = format!(
                    "found {}; expected {}",
                    node.describe(),
                    param.expectation()
                );
                self.wrong(path, why);
                None
            }
        }
    }

    /// Tells what is wrong with a parameter of the object at `path`.
    fn failed(&mut self, path: &Path, failure: &Failure) {
        match failure {
            Failure::Parameter(error) => {
                let at = path.key(error.flag());
                let missing = self.source.find(&at).is_none();
                let place = match missing {
                    true => self.source.key_place(path),
                    false => self.source.place(&at),
                };
                self.findings.add(Severity::Error, place, at, error.why());
            }
            other => self.wrong(path, other.to_string()),
        }
    }

    fn stages(&mut self) -> BTreeMap<String, StageSaid> {
        let mut stages = BTreeMap::new();
        let path = Path::root().key("stages");
        let names: Vec<String> = match self.source.find(&path).map(|node| &node.value) {
            // All may stand in the routes.
            None => return stages,
            Some(Value::Map(entries)) if !entries.is_empty() && entries.len() <= MOST => {
                entries.iter().map(|entry| entry.key.clone()).collect()
            }
            _ => {
                let why = format!(
                    "expected an object of 1 to {MOST} stages, such as \"web: {{balance: {{upstream: app:8080}}}}\""
                );
                self.wrong(&path, why);
                return stages;
            }
        };
        for name in names {
            let path = path.key(name.clone());
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(valid) {
                self.wrong(
                    &path,
                    "a stage's name has at most 64 letters, digits, - _ and .",
                );
                continue;
            }
            if let Some(stage) = self.any_stage(&path) {
                stages.insert(name, stage);
            }
        }
        stages
    }

    /// An object with one key, the kind of the stage.
    fn any_stage(&mut self, path: &Path) -> Option<StageSaid> {
        let kinds: Vec<&str> = super::kinds::KINDS.iter().map(|kind| kind.name).collect();
        let right = self.keys(path, &kinds)?;
        let [kind] = &right[..] else {
            if right.len() > 1 {
                let why = format!("is one of {}, not several", kinds.join(", "));
                self.wrong(path, why);
            } else if self.source.find(path).is_some_and(Node::is_unset) {
                self.wrong(path, format!("expected one of {}", kinds.join(", ")));
            }
            return None;
        };
        let kind = Kind::find(kind)?;
        self.stage(&path.key(kind.name), kind)
    }

    fn stage(&mut self, path: &Path, kind: &'static Kind) -> Option<StageSaid> {
        let keys = kind.keys();
        let flags: Vec<String> = keys.iter().map(Param::flag).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let errors = self.findings.count(Severity::Error);
        self.keys(path, &flags)?;
        let said = self.said(path, &keys);
        if self.findings.count(Severity::Error) > errors {
            return None;
        }
        let values = gather(&kind.params(), &said);
        if let Err(failure) = (kind.check)(&values) {
            self.failed(path, &failure);
            return None;
        }
        Some(StageSaid { kind, values, said })
    }

    /// `place`: what the names of stages in them begin with.
    fn routes(
        &mut self,
        path: &Path,
        place: &str,
        stages: &BTreeMap<String, StageSaid>,
    ) -> Vec<RouteSaid> {
        let count = match self.source.find(path).map(|node| &node.value) {
            Some(Value::Seq(items)) if !items.is_empty() && items.len() <= MOST => items.len(),
            _ => {
                self.wrong(path, format!("expected a list of 1 to {MOST} routes"));
                return Vec::new();
            }
        };
        let mut routes: Vec<RouteSaid> = Vec::new();
        for at in 0..count {
            let path = path.index(at);
            let Some(route) = self.route(&path, place, stages) else {
                continue;
            };
            let same = |other: &RouteSaid| {
                let mut hosts = route.hosts.iter();
                other.path == route.path && hosts.any(|host| other.hosts.contains(host))
            };
            if let Some(before) = routes.iter().position(same) {
                let why = format!("route {before} has the same host and path already");
                self.wrong(&path, why);
            }
            routes.push(route);
        }
        routes
    }

    fn route(
        &mut self,
        path: &Path,
        place: &str,
        stages: &BTreeMap<String, StageSaid>,
    ) -> Option<RouteSaid> {
        self.keys(path, &["host", "path", "stages"])?;
        let mut hosts = Vec::new();
        for (at, text) in self.list(&path.key("host")) {
            match HostPattern::parse(&text) {
                Ok(host) => hosts.push(host),
                Err(why) => self.wrong(&at, why),
            }
        }
        if hosts.is_empty() {
            hosts.push(HostPattern::Any);
        }
        let pattern = match self.find(&path.key("path")) {
            None => PathPattern::Under(String::new()),
            Some(node) => match PathPattern::parse(node.as_str().unwrap_or_default()) {
                Ok(pattern) => pattern,
                Err(why) => {
                    self.wrong(&path.key("path"), why);
                    return None;
                }
            },
        };
        let at_stages = path.key("stages");
        let mut named = Vec::new();
        for (path, node) in self.items(&at_stages) {
            match &node.value {
                Value::Str(name) => named.push((path, name.clone())),
                Value::Map(_) => {
                    let stage = self.any_stage(&path)?;
                    let name = self.name(place, &hosts[0], &pattern, stage.kind);
                    self.inline.insert(name.clone(), stage);
                    named.push((path, name));
                }
                _ => {
                    let found = node.describe();
                    let why = format!("expected a stage or the name of one, found {found}");
                    self.wrong(&path, why);
                    return None;
                }
            }
        }
        if named.is_empty() {
            self.wrong(
                &at_stages,
                "expected a list of stages, the last of them balance",
            );
            return None;
        }
        let last = named.len() - 1;
        let broken = self.findings.has_errors();
        for (at, (path, name)) in named.iter().enumerate() {
            match stages.get(name).or_else(|| self.inline.get(name)) {
                Some(stage) if stage.kind.is_end == (at == last) => {}
                Some(stage) if stage.kind.is_end => {
                    let why = format!(
                        "{name} is {} and ends the route; nothing can follow",
                        stage.kind.name
                    );
                    self.wrong(path, why);
                }
                Some(_) => {
                    let why = format!(
                        "the route ends with {name}, which forwards nothing; its last stage is to be balance"
                    );
                    self.wrong(path, why);
                }
                // One that is there and wrong was told.
                None if broken
                    && self
                        .source
                        .find(&Path::root().key("stages").key(name.clone()))
                        .is_some() => {}
                None => {
                    let hint = match nearest(name, stages.keys().map(String::as_str)) {
                        Some(near) => format!("did you mean {near}?"),
                        None => "stages names them".to_owned(),
                    };
                    self.wrong(path, format!("there is no stage \"{name}\"; {hint}"));
                }
            }
        }
        Some(RouteSaid {
            hosts,
            path: pattern,
            stages: named.into_iter().map(|(_, name)| name).collect(),
        })
    }

    /// What a stage that stands in a route is called: by what the route is for, so that it is the same one wherever the route
    /// stands in the file.
    fn name(&self, place: &str, host: &HostPattern, path: &PathPattern, kind: &Kind) -> String {
        let host = match host {
            HostPattern::Any => String::new(),
            host => host.to_string(),
        };
        let name = format!("{place}{host}{path} {}", kind.name);
        let more = (2..).map(|number| format!("{name} {number}"));
        let mut names = std::iter::once(name.clone()).chain(more);
        names
            .find(|name| !self.inline.contains_key(name))
            .unwrap_or_default()
    }

    /// An item, or a list of them; with their places.
    fn items(&self, path: &Path) -> Vec<(Path, Node)> {
        let Some(node) = self.find(path) else {
            return Vec::new();
        };
        match &node.value {
            Value::Seq(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| (path.index(at), item.clone()))
                .collect(),
            _ => vec![(path.clone(), node)],
        }
    }

    /// A text, or a list of them; with their places.
    fn list(&mut self, path: &Path) -> Vec<(Path, String)> {
        let mut texts = Vec::new();
        for (at, item) in self.items(path) {
            match item.as_str() {
                Some(text) => texts.push((at, text.to_owned())),
                None => self.wrong(&at, format!("expected a text, found {}", item.describe())),
            }
        }
        texts
    }

    fn listener(
        &mut self,
        path: &Path,
        is_top: bool,
        shared: Option<&Arc<Vec<RouteSaid>>>,
        stages: &BTreeMap<String, StageSaid>,
    ) -> Option<ListenerSaid> {
        let (keys, tls_keys) = (listener_keys(), tls_keys());
        if !is_top {
            let flags: Vec<String> = keys.iter().map(Param::flag).collect();
            let mut known: Vec<&str> = flags.iter().map(String::as_str).collect();
            known.extend(["tls", "routes"]);
            self.keys(path, &known)?;
        }
        let errors = self.findings.count(Severity::Error);
        let mut said = self.said(path, &keys);
        let at_tls = path.key("tls");
        let tls = match self.find(&at_tls) {
            None => None,
            Some(_) => {
                let flags: Vec<String> = tls_keys.iter().map(Param::flag).collect();
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                self.keys(&at_tls, &flags)?;
                let said = self.said(&at_tls, &tls_keys);
                let values = gather(&tls_keys, &said);
                let params = TlsParams::from_values(&values).and_then(|params| {
                    params.source()?;
                    params.client_rules()?;
                    Ok(params)
                });
                match params {
                    Ok(params) => Some((params, said)),
                    Err(error) => {
                        self.failed(&at_tls, &error.into());
                        None
                    }
                }
            }
        };
        let mut with_bound = said.clone();
        with_bound.push(("max_connections", vec![self.connections.to_string()]));
        let values = gather(&listener_params(), &with_bound);
        let params = entrance(&values);
        let params = match params {
            Ok(params) => params,
            Err(failure) => {
                self.failed(path, &failure);
                return None;
            }
        };
        let own = path.key("routes");
        let routes = match (is_top, self.find(&own)) {
            (false, Some(_)) => {
                let listen = params.listen.first().map(ToString::to_string);
                let place = format!("{} ", listen.unwrap_or_default());
                Arc::new(self.routes(&own, &place, stages))
            }
            _ => match shared {
                Some(shared) => Arc::clone(shared),
                None => {
                    self.wrong(
                        &own,
                        "expected a list of routes, here or for the whole file",
                    );
                    return None;
                }
            },
        };
        if self.findings.count(Severity::Error) > errors {
            return None;
        }
        let (tls, tls_said) = tls.unzip();
        // Fields of TLS have names of their own.
        said.extend(tls_said.unwrap_or_default());
        Some(ListenerSaid {
            params: EntranceParams { tls, ..params },
            said,
            routes,
        })
    }
}

fn entrance(values: &Values) -> Result<EntranceParams, Failure> {
    let keys = ListenerKeys::from_values(values)?;
    if keys.listen.is_empty() {
        let why = "is missing; expected host:port, :port, [::1]:port or unix:/path";
        return Err(podkit_foundation::params::ParamError::new("listen", why).into());
    }
    Ok(EntranceParams {
        listen: keys.listen,
        accept_proxy: keys.accept_proxy,
        limits: HttpLimits::from_values(values)?,
        http2: Http2Limits::from_values(values)?,
        tls: None,
    })
}

fn gather(params: &[Param], said: &Said) -> Values {
    let texts = |param: &Param| -> Vec<String> {
        let found = said.iter().find(|(field, _)| *field == param.field);
        found.map(|(_, texts)| texts.clone()).unwrap_or_default()
    };
    Values::gather(params.iter(), &texts, &|_| None)
}
