//! Globs: `a.*.c`, of which a star stands for one part of a name. All of a file are one tree, part by part.

use std::collections::HashMap;

use super::Sort;

/// All globs of a file.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// The first rule of the file wins; else, at each part, the one that says the part.
    is_ordered: bool,
}

#[derive(Debug, Default)]
struct Node {
    parts: HashMap<Box<str>, usize>,
    star: Option<usize>,
    /// Rules that end here, in their order.
    rules: Vec<(usize, Option<Sort>)>,
}

/// What is looked for, and what was found on the way.
struct Search<'a> {
    parts: Vec<&'a str>,
    sort: Option<Sort>,
    captures: Vec<&'a str>,
    found: Option<(usize, Vec<&'a str>)>,
}

impl Tree {
    pub(super) fn new(is_ordered: bool) -> Self {
        Self {
            nodes: vec![Node::default()],
            is_ordered,
        }
    }

    /// Adds a rule; they come in their order.
    pub(super) fn add(&mut self, glob: &str, rule: usize, sort: Option<Sort>) {
        let mut at = 0;
        for part in glob.split('.') {
            let fresh = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match part {
                "*" => *node.star.get_or_insert(fresh),
                part => *node.parts.entry(part.into()).or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[at].rules.push((rule, sort));
    }

    /// The rule for a name, and what its stars stand for.
    pub(super) fn find<'a>(
        &self,
        name: &'a str,
        sort: Option<Sort>,
    ) -> Option<(usize, Vec<&'a str>)> {
        if self.nodes.len() == 1 {
            return None;
        }
        let mut search = Search {
            parts: name.split('.').collect(),
            sort,
            captures: Vec::new(),
            found: None,
        };
        self.walk(0, 0, &mut search);
        search.found
    }

    /// Goes no deeper than the tree, whatever the name is, and to each node once.
    fn walk(&self, at: usize, depth: usize, search: &mut Search<'_>) {
        let node = &self.nodes[at];
        let Some(part) = search.parts.get(depth).copied() else {
            let mut rules = node.rules.iter();
            let fits = |(_, sort): &&(usize, Option<Sort>)| sort.is_none() || *sort == search.sort;
            if let Some((rule, _)) = rules.find(fits)
                && search.found.as_ref().is_none_or(|(found, _)| rule < found)
            {
                search.found = Some((*rule, search.captures.clone()));
            }
            return;
        };
        if let Some(next) = node.parts.get(part) {
            self.walk(*next, depth + 1, search);
        }
        let is_done = !self.is_ordered && search.found.is_some();
        if let Some(next) = node.star.filter(|_| !is_done) {
            search.captures.push(part);
            self.walk(next, depth + 1, search);
            search.captures.pop();
        }
    }
}

/// `${1}_total`, filled. As for regular expressions, a reference is as long as it can be, and one to nothing is empty.
pub(super) fn fill(template: &str, captures: &[&str]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let is_word = |one: char| one.is_ascii_alphanumeric() || one == '_';
        let (word, next) = match after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'))
        {
            Some(braced) => braced,
            None => {
                let end = after.find(|one| !is_word(one)).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if word.is_empty() {
            out.push('$');
        } else if let Some(at) = word.parse::<usize>().ok().and_then(|at| at.checked_sub(1)) {
            out.push_str(captures.get(at).copied().unwrap_or_default());
        }
        rest = next;
    }
    out.push_str(rest);
    out
}
