//! The table of what is masked, and of what must stay readable.

use crate::topz::mask::{cut, shown_command};

/// Arguments are written with `|` between them.
fn check(arguments: &str, expected: &str) {
    let raw: Vec<u8> = arguments
        .split('|')
        .flat_map(|argument| [argument.as_bytes(), b"\0"].concat())
        .collect();
    assert_eq!(shown_command(&raw, 1024), expected, "for {arguments}");
}

#[test]
fn values_of_secret_options() {
    check("app|--password=hunter2", "app --password=***");
    check(
        "app|--password|hunter2|--port|80",
        "app --password *** --port 80",
    );
    check("app|-token|abc|x", "app -token *** x");
    check("app|--db-pass=a=b", "app --db-pass=***");
    check(
        "app|--api-key=k|--apiKey|k2",
        "app --api-key=*** --apiKey ***",
    );
    check(
        "app|--secret|s3|--client-secret=z",
        "app --secret *** --client-secret=***",
    );
    check(
        "java|-Dspring.datasource.password=pw|-jar|a.jar",
        "java -Dspring.datasource.password=*** -jar a.jar",
    );
    check(
        "app|FOO_TOKEN=x|DB_PASSWORD=y|AWS_SECRET_ACCESS_KEY=z",
        "app FOO_TOKEN=*** DB_PASSWORD=*** AWS_SECRET_ACCESS_KEY=***",
    );
    check("env|GITHUB_TOKEN=ghp_1|run", "env GITHUB_TOKEN=*** run");
    check(
        "redis-server|--requirepass|pw|--masterauth|pw2",
        "redis-server --requirepass *** --masterauth ***",
    );
    check("erl|-setcookie|monster", "erl -setcookie ***");
    check("app|--auth-token:abc", "app --auth-token:***");
    check("app|--encryption.key|abc", "app --encryption.key ***");
    check("app|--credentials|abc", "app --credentials ***");
    check(
        "app|--aws-access-key-id=AKIA1",
        "app --aws-access-key-id=***",
    );
}

#[test]
fn short_options_of_known_programs() {
    check(
        "/usr/bin/mysql|-uroot|-psecret|-h|db",
        "/usr/bin/mysql -uroot -p*** -h db",
    );
    check("mysqldump|-p|db1", "mysqldump -p db1");
    check("mariadb-admin|-pfoo", "mariadb-admin -p***");
    check("sshpass|-p|pw|ssh|host", "sshpass -p *** ssh host");
    check("redis-cli|-a|pw|-p|6379", "redis-cli -a *** -p 6379");
    check("ldapsearch|-w|pw|-x", "ldapsearch -w *** -x");
    check("nginx|-p|/prefix", "nginx -p /prefix");
    check("ps|-p|12", "ps -p 12");
    check("curl|-u|me:pw|https://h/", "curl -u *** https://h/");
    check("curl|--user|me|https://h/", "curl --user me https://h/");
}

#[test]
fn urls_and_connection_strings() {
    check(
        "app|postgres://me:pw@db:5432/x?sslmode=off",
        "app postgres://me:***@db:5432/x?sslmode=off",
    );
    check(
        "app|--url=redis://:pw@h:6379/0",
        "app --url=redis://:***@h:6379/0",
    );
    check(
        "git|clone|https://ghp_0123456789abcdef0123@github.com/x",
        "git clone https://***@github.com/x",
    );
    check(
        "git|clone|git@github.com:me/x.git",
        "git clone git@github.com:me/x.git",
    );
    check("app|https://h:8080/p@q", "app https://h:8080/p@q");
    check(
        "app|https://h/?token=abc&page=2",
        "app https://h/?token=***&page=2",
    );
    check("app|amqp://u:p/w@h/v", "app amqp://u:***@h/v");
    check(
        "app|Server=db;User Id=sa;Password=pw;Encrypt=yes",
        "app Server=db;User Id=sa;Password=***;Encrypt=yes",
    );
    check("app|me:pw@tcp(db:3306)/x", "app me:***@tcp(db:3306)/x");
    check(
        "podman|run|nginx:1.2@sha256:0abc",
        "podman run nginx:1.2@sha256:0abc",
    );
}

#[test]
fn headers_and_scripts() {
    check(
        "curl|-H|Authorization: Bearer abc.def|https://h",
        "curl -H Authorization: *** https://h",
    );
    check(
        "curl|-H|X-Api-Key: k|-d|a=b",
        "curl -H X-Api-Key: *** -d a=b",
    );
    check(
        "sh|-c|mycmd --password hunter2 && echo done",
        "sh -c mycmd --password *** && echo done",
    );
    check(
        "sh|-c|PGPASSWORD=pw psql -h db",
        "sh -c PGPASSWORD=*** psql -h db",
    );
    check(
        "sh|-c|curl -H 'Authorization: Bearer abc' h",
        "sh -c curl -H 'Authorization: Bearer *** h",
    );
    check(
        "sh|-c|mysql -u root https://a:b@h/",
        "sh -c mysql -u root https://a:***@h/",
    );
}

#[test]
fn what_only_says_where_a_secret_is_stays() {
    check(
        "podkit|tls|--cert|/c.pem|--key|/k.pem",
        "podkit tls --cert /c.pem --key /k.pem",
    );
    check(
        "app|--tls-key=/etc/k.pem|--password-file|/run/pw",
        "app --tls-key=/etc/k.pem --password-file /run/pw",
    );
    check(
        "app|--secret-name|db|--token-ttl=5m",
        "app --secret-name db --token-ttl=5m",
    );
    check("app|--no-password|--port|80", "app --no-password --port 80");
    check(
        "app|--sort-key|name|--keyspace|ks",
        "app --sort-key name --keyspace ks",
    );
    check(
        "app|--author|me|--monkey=1|--compass|n",
        "app --author me --monkey=1 --compass n",
    );
    check("sleep|1000", "sleep 1000");
    check("PWD=/home|x", "PWD=/home x");
}

#[test]
fn titles_and_odd_bytes() {
    assert_eq!(shown_command(b"", 100), "");
    assert_eq!(shown_command(b"\0\0\0", 100), "");
    assert_eq!(
        shown_command(
            b"nginx: master process /usr/sbin/nginx -g daemon off;\0",
            100
        ),
        "nginx: master process /usr/sbin/nginx -g daemon off;"
    );
    assert_eq!(
        shown_command(b"postgres: me db 10.0.0.1(5) idle\0\0\0\0", 100),
        "postgres: me db 10.0.0.1(5) idle"
    );
    assert_eq!(shown_command(b"a\0\0b\0", 100), "a  b");
    assert_eq!(
        shown_command(b"a\0x\n\x1b[2Jy\xff\0", 100),
        "a x  [2Jy\u{fffd}"
    );
    assert_eq!(cut("aéé".to_owned(), 4), "a…");
    assert_eq!(cut("aéé".to_owned(), 5), "aéé");
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_one_short_line(raw: Vec<u8>) {
        let shown = shown_command(&raw, 64);
        proptest::prop_assert!(shown.len() <= 64 && !shown.contains(char::is_control));
    }

    #[test]
    fn a_password_never_comes_through(secret in "[a-zA-Z0-9/+._~-]{8,30}", form in 0usize..8) {
        let secret = format!("q{secret}Q");
        let raw = match form {
            0 => format!("app\0--password={secret}\0"),
            1 => format!("app\0--password\0{secret}\0--x\0"),
            2 => format!("app\0http://me:{secret}@host/p\0"),
            3 => format!("app\0DB_PASSWORD={secret}\0x\0"),
            4 => format!("sh\0-c\0app --token {secret} now\0"),
            5 => format!("mysql\0-p{secret}\0"),
            6 => format!("curl\0-H\0Authorization: Bearer {secret}\0"),
            _ => format!("app\0http://h/?a=1&api_key={secret}&b=2\0"),
        };
        proptest::prop_assert!(!shown_command(raw.as_bytes(), 1024).contains(&secret), "{raw}");
    }
}
