//! Names, as one name server has them.

use std::net::Ipv4Addr;

use podkit_testkit::dns::NameServer;
use podkit_testkit::net::free_addr;
use podkit_testkit::until;

use super::Ground;

#[test]
fn a_name_server_is_asked() {
    let at = free_addr();
    let [old, new] = [7, 8].map(|last| Ipv4Addr::new(10, 0, 0, last));
    let names = NameServer::start(at, "app.test", &[old]);
    let ground = Ground::start(&[
        format!("--probe=app=dns://app.test;server={at};address={old}"),
        format!("--probe=two=dns://app.test;server={at};at-least=2;for=startup"),
        format!("--probe=other=dns://other.test;server={at};for=startup"),
        format!(
            "--probe=away=dns://app.test;server={};for=startup",
            free_addr()
        ),
    ]);
    ground.wait("/readyz", 200);
    names.set(&[new]);
    let failed = ground.wait("/readyz", 503).text();
    assert!(
        failed.contains("[-]app failed: is 10.0.0.8, not 10.0.0.7\n"),
        "{failed}"
    );
    let started = until("all were tried", || {
        let text = ground.get("/startupz").text();
        (!text.contains("no result yet")).then_some(text)
    });
    for failed in [
        "[-]two failed: has only 1 of 2 addresses: 10.0.0.8\n",
        "[-]other failed: can't be resolved: no such host\n",
        "[-]away failed: no answer within 1000 ms (in dns)\n",
    ] {
        assert!(started.contains(failed), "{started}");
    }
    names.set(&[old, new]);
    ground.wait("/readyz", 200);
}
