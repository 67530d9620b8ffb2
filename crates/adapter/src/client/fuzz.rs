//! Targets of the fuzzer: what servers send.

use podkit_dataplane::net::Socket;
use podkit_foundation::fuzz::Target;
use podkit_foundation::params::{Addr, ParamType as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::{Answer, Fault, Line, Login, TlsMode, memcached, mysql, postgres};

/// All clients' but Redis', whose protocol is dataplane's.
pub(crate) const TARGETS: [Target; 5] = [MEMCACHED, MYSQL, MYSQL_TALK, POSTGRES, POSTGRES_TALK];

const MEMCACHED: Target = Target {
    name: "memcached-server",
    seeds: &[
        b"\x05STAT a 1\r\nSTAT b END\r\nEND\r\nVERSION 1.6\r\n",
        b"\x01ERROR\r\nCLIENT_ERROR no\r\n",
    ],
    run: memcached::read_all,
};

const MYSQL: Target = Target {
    name: "mysql-server",
    seeds: &[
        b"\x0a5.5.5-10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x0f\0\0\0ijklmnopqrst\0mysql_native_password\0",
        b"\x03def\0\0\0\x04name\0\x0c\x2d\0\xff\0\0\0\xfd\0\0\0\0\0",
        b"\xff\x15\x04#28000Access denied",
        b"\x03abc\xfb\xfc\x01\0d",
    ],
    run: mysql::read_all,
};

const POSTGRES: Target = Target {
    name: "postgres-server",
    seeds: &[
        b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        b"\0\x02\0\0\0\x01a\xff\xff\xff\xff",
        b"SFATAL\0VFATAL\0C28P01\0Mno such user\0\0",
    ],
    run: postgres::read_all,
};

/// A login, and answers to a question.
const MYSQL_TALK: Target = Target {
    name: "mysql-talk",
    seeds: &[
        b"\0\x4d\0\0\0\x0a8.0.36-28\0\x01\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0caching_sha2_password\0\
          \x02\0\0\x02\x01\x04\x07\0\0\x04\0\0\0\x02\0\0\0\x01\0\0\x01\x01\x17\0\0\x02\x03def\0\0\0\x01a\0\x0c\x2d\0\xff\0\0\0\xfd\0\0\0\0\0\
          \x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x01b\x05\0\0\x05\xfe\0\0\x0a\0\x07\0\0\x06\0\0\0\x02\0\0\0",
        b"\0\x01\0\0\0\xff",
        b"\x01\x01\0\0\0\xff",
    ],
    run: |bytes| talk(bytes, true),
};

/// The same.
const POSTGRES_TALK: Target = Target {
    name: "postgres-talk",
    seeds: &[
        b"\0R\0\0\0\x08\0\0\0\x03R\0\0\0\x08\0\0\0\0S\0\0\0\x16server_version\x0015\0Z\0\0\0\x05I\
          T\0\0\0\x1a\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x01bC\0\0\0\x09SELE\0Z\0\0\0\x05I",
        b"\0R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x17\0\0\0\x0br=a,s=YWI=,i=4096",
        b"\0R\0\0\0\x0c\0\0\0\x05abcdE\0\0\0\x0eC28P01\0\0\0",
        b"\x01SN",
    ],
    run: |bytes| talk(bytes, false),
};

/// All that a server says, before it hears anything; the first byte says whether TLS is asked for.
fn talk(bytes: &[u8], is_mysql: bool) {
    let Some((first, said)) = bytes.split_first() else {
        return;
    };
    let tls = first % 2 == 1;
    let login = Login {
        addr: Addr::parse(if tls { "127.0.0.1:1" } else { "unix:/s" }).expect("it is one"),
        user: "user".to_owned(),
        // A file that every process has, with a word in it.
        password_file: Some("/proc/self/comm".into()),
        database: None,
        tls: if tls { TlsMode::Prefer } else { TlsMode::Off },
        files: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("there are descriptors for a runtime");
    runtime.block_on(async {
        let (near, mut far) = UnixStream::pair().expect("there are descriptors for sockets");
        let (written, _) = tokio::join!(
            async {
                far.write_all(said).await?;
                far.shutdown().await
            },
            async {
                let line = Line::plain(Socket::Unix(near));
                match is_mysql {
                    true => answers_of_mysql(line, &login).await,
                    false => answers_of_postgres(line, &login).await,
                }
            }
        );
        // Who found something wrong has closed it.
        drop(written);
    });
}

async fn answers_of_mysql(line: Line, login: &Login) -> Result<(), Fault> {
    let mut conn = mysql::Conn::over(line, login, true, &|_| ()).await?;
    conn.ask("SELECT 1").await?;
    while !matches!(conn.next().await?, Answer::End) {}
    Ok(())
}

async fn answers_of_postgres(line: Line, login: &Login) -> Result<(), Fault> {
    let mut conn = postgres::Conn::over(line, login, &|_| ()).await?;
    conn.ask("SELECT 1").await?;
    while !matches!(conn.next().await?, Answer::End) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else nothing behind the login would be reached.
    #[test]
    fn the_first_seeds_are_talked_to_their_end() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let login = Login {
            addr: Addr::parse("unix:/s").unwrap(),
            user: "user".to_owned(),
            password_file: Some("/proc/self/comm".into()),
            database: None,
            tls: TlsMode::Off,
            files: None,
        };
        let line = |target: &Target| {
            let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut far, &target.seeds[0][1..]).unwrap();
            far.shutdown(std::net::Shutdown::Write).unwrap();
            near.set_nonblocking(true).unwrap();
            (
                Line::plain(Socket::Unix(UnixStream::from_std(near).unwrap())),
                far,
            )
        };
        runtime.block_on(async {
            let (line_of_mysql, _far) = line(&MYSQL_TALK);
            answers_of_mysql(line_of_mysql, &login).await.unwrap();
            let (line_of_postgres, _far) = line(&POSTGRES_TALK);
            answers_of_postgres(line_of_postgres, &login).await.unwrap();
        });
    }
}
