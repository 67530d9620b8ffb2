//! Targets of the fuzzer: probes, as they are written.

use std::time::Duration;

use podkit_foundation::fuzz::Target;
use podkit_foundation::params::ParamType as _;

use super::link::Ground;
use super::spec::{Spec, Usual};
use super::{file, probe};

/// All of the module.
pub(crate) const TARGETS: [Target; 2] = [
    Target {
        name: "health-probe",
        seeds: &[
            b"web=https://[::1]:443/a?b;status=200-299,304;header=A: b;body=x.*y;json=$.a>1;p99=250ms",
            b"db=mysql://u@h:1/d;query=SELECT 1;rows=1;value=<=5;for=live;liveness=force",
            b"r=redis://h;role=primary;max-lag=10s;canary=write;period=1s;failure=2",
            b"d=disk:///var;free=10%;inodes=1000",
            b"n=dns://example.com;type=AAAA;server=127.0.0.1:53",
            b"e=exec:/bin/check --a b;slow=unhealthy",
            b"g=grpc://h:1/service",
            b"t=tcp://h:1;send=a;expect=b",
            b"m=memcached://unix:/s",
        ],
        run: |bytes| {
            if let Ok(spec) = Spec::parse(&String::from_utf8_lossy(bytes)) {
                try_out(&spec);
            }
        },
    },
    Target {
        name: "health-file",
        seeds: &[
            b"probes:\n  web: {url: http://h/x, status: 200, header: [a, b]}\n  db:\n    url: postgres://u@h/d\n    query: |\n      SELECT 1\n",
        ],
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for spec in file::parse("file", &text).unwrap_or_default() {
                try_out(&spec);
            }
        },
    },
];

/// As far as it goes without asking anybody.
fn try_out(spec: &Spec) {
    let usual = Usual {
        period: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        failure: 3,
        success: 1,
        window: Duration::from_secs(60),
        history: 20,
    };
    let ground = Ground {
        tls: None,
        relogin: Duration::from_secs(60),
    };
    drop(spec.rules(&usual));
    drop(probe::prober(spec, &ground, usual.timeout));
}
