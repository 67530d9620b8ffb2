//! What a Redis says, and the file of queries.

use podkit_dataplane::resp::Value;
use podkit_foundation::fuzz::Target;

use super::keys::Key;
use super::{info, keys, more, queries, read_info, sentinel, streams};
use crate::metrics::batch::Batch;
use crate::metrics::fuzz::check_page;
use crate::metrics::source::words;

/// One reply, taken for that to each command.
pub(crate) const ANSWERS: Target = Target {
    name: "metrics-redis",
    seeds: &[
        b"$129\r\n# Server\r\nredis_version:7.0.15\r\nmaster_host:h\r\nslave0:ip=1,port=2,state=online,offset=3,lag=0\r\n# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=7\r\n\r\n",
        b"*2\r\n$26\r\nclient-output-buffer-limit\r\n$12\r\nnormal 0 0 0\r\n",
        b"*1\r\n*4\r\n$1\r\ne\r\n:1\r\n:2\r\n:3\r\n",
        b"*2\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n*4\r\n:1\r\n:2\r\n:4\r\n:3\r\n",
        b"$46\r\nid=3 addr=[::1]:1 name=a\\b age=7 flags=N db=0 x\n\n\r\n",
        b"*1\r\n*6\r\n$4\r\nname\r\n$1\r\nm\r\n$2\r\nip\r\n$1\r\nh\r\n$4\r\nport\r\n$1\r\n1\r\n",
        b"%2\r\n$6\r\nlength\r\n:2\r\n$11\r\nfirst-entry\r\n*2\r\n$3\r\n7-1\r\n*0\r\n",
    ],
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut batch = Batch::default();
        info::read(&text, 1e9, None, &mut batch);
        info::read_cluster(&text, &mut batch);
        check_page(&batch);
        let Some(reply) = Value::read(bytes) else {
            return;
        };
        let mut batch = Batch::default();
        drop(read_info(&reply, more::databases(&reply), 1e9, &mut batch));
        more::latency_histogram(&reply, &mut batch);
        more::config(&reply, &mut batch);
        more::slow_log(&reply, &reply, &mut batch);
        more::command_log("slow", &reply, &mut batch);
        more::latency_latest(&reply, &mut batch);
        more::clients(&reply, 1e9, &mut batch);
        sentinel::masters(&reply, &mut batch);
        let key = Key {
            database: "0".to_owned(),
            number: 0,
            name: bytes.to_vec(),
        };
        streams::stream(&reply, &[("db", "0"), ("stream", &key.shown())], &mut batch);
        streams::consumers(&key, bytes, &reply, &mut batch);
        check_page(&batch);
    },
};

pub(crate) const KEYS: Target = Target {
    name: "metrics-redis-keys",
    seeds: &[b"db3=user:?|jobs| 0=a%2Cb+%3D|"],
    run: |bytes| drop(keys::patterns("keys", &String::from_utf8_lossy(bytes), 0)),
};

pub(crate) const QUERIES: Target = Target {
    name: "metrics-redis-queries",
    seeds: &[
        b"- name: a\n  command: LLEN jobs\n  help: h\n  labels: {q: jobs}\n",
        b"- {name: b, command: [EVAL, x, 0], type: counter, value: '1', each: l, interval: 30s, database: 3}\n",
    ],
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let reply = Value::read(b"*4\r\n$1\r\na\r\n:1\r\n$3\r\nb\\\n\r\n$1\r\n2\r\n");
        let reply = reply.expect("it is one");
        for query in words::parse("queries", "file", &text, queries::queries).unwrap_or_default() {
            let mut batch = Batch::default();
            query.read(&reply, &mut batch);
            check_page(&batch);
        }
    },
};
