use podkit_testkit::tls::Client;

use super::*;

/// Sends back what it gets until the end, then says how much it was and closes.
fn echo(mut stream: TcpStream) {
    let (mut total, mut chunk) = (0, vec![0; 65_536]);
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        total += count;
        if stream.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
    drop(stream.write_all(format!("END {total}").as_bytes()));
}

#[test]
fn bytes_go_through_both_ways_and_each_end_closes_for_itself() {
    let app = App::speaking(echo);
    let tls = Tls::start(app.addr, &[("self-signed", "true"), ("mode", "tcp")]);
    let mut stream = Client::trusting().connect(tls.addr, "localhost").unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut received = Vec::new();
    for piece in sent.chunks(100_000) {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
        let mut back = vec![0; piece.len()];
        stream.read_exact(&mut back).unwrap();
        received.extend_from_slice(&back);
    }
    assert!(sent == received, "what came back is not what was sent");
    // close_notify is passed on as the end; what the application says after it still comes.
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "END 3000000");
}

#[test]
fn an_application_that_speaks_first_is_heard() {
    let app = App::speaking(|mut stream| {
        stream.write_all(b"220 hello\r\n").unwrap();
    });
    let tls = Tls::start(app.addr, &[("self-signed", "true"), ("mode", "tcp")]);
    let mut stream = Client::trusting().connect(tls.addr, "localhost").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "220 hello\r\n");
}
