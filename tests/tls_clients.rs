//! TLS with certificates of clients, sessions, tickets and the finer settings.

use crate::harness::tls::{showing, trusting, trusting_with};
use crate::harness::{Client, Site};
use rustls::version::{TLS12, TLS13};
use std::sync::Arc;

fn as_client(t: &Site) -> Arc<rustls::ClientConfig> {
    showing(&t.read("client.pem").unwrap(), &t.read("client.key").unwrap())
}

fn to(t: &Site, port: &str, config: Arc<rustls::ClientConfig>) -> Result<Client, String> {
    Client::connect(t.address(port)).try_tls("localhost", config)
}

const VERIFYING: &str = r#"
    ssl_certificate cert.pem; ssl_certificate_key key.pem; ssl_session_tickets off;
    server { listen 127.0.0.1:{PORT} ssl; ssl_verify_client on; ssl_client_certificate ca.pem; ssl_verify_depth 1;
        location / { return 200 "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_serial|$ssl_client_fingerprint|$ssl_client_v_remain"; }
        location /pem { return 200 "$ssl_client_escaped_cert"; } }
    server { listen 127.0.0.1:{PORT2} ssl; ssl_verify_client optional; ssl_client_certificate ca.pem; location / { return 200 "$ssl_client_verify"; } }
    server { listen 127.0.0.1:{PORT3} ssl; ssl_verify_client optional_no_ca; location / { return 200 "$ssl_client_verify"; } }
    server { listen 127.0.0.1:{PORT4} ssl; ssl_verify_client optional; ssl_client_certificate ca.pem; ssl_crl revoked.pem; location / { return 200 "$ssl_client_verify"; } }
    server { listen 127.0.0.1:{PORT5} ssl; ssl_verify_client on; ssl_trusted_certificate ca.pem; ssl_client_certificate ca.pem; ssl_crl crl.pem; location / { return 200 "$ssl_client_verify"; } }"#;

nginx_test!(clients_are_verified, VERIFYING, |t| {
    let with = as_client(t);
    let ask = |port: &str, config: &Arc<rustls::ClientConfig>| {
        to(t, port, config.clone()).unwrap().ask("GET /")
    };
    let seen = ask("PORT", &with).expect("200 SUCCESS|CN=client|CN=an authority|4D|*|*").text();
    assert_eq!(seen.split('|').nth(4).map(str::len), Some(40));
    to(t, "PORT", with.clone())
        .unwrap()
        .ask("GET /pem")
        .expect("200 -----BEGIN%20CERTIFICATE-----%0A*-----END%20CERTIFICATE-----%0A");
    ask("PORT", &trusting()).expect("400 *<center><h1>400 Bad Request</h1></center>\\r\\n<center>No required SSL certificate was sent</center>*");
    ask("PORT2", &with).expect("200 SUCCESS");
    ask("PORT2", &trusting()).expect("200 NONE");
    ask("PORT3", &with).expect("200 FAILED:unable to verify the first certificate");
    ask("PORT4", &with).expect("400 *The SSL certificate error*");
    ask("PORT4", &trusting()).expect("200 NONE");
    ask("PORT5", &with).expect("200 SUCCESS");
    t.error_log().expect(
        "[info] *client sent no required SSL certificate while reading client request headers",
    );
    t.error_log().expect("[info] *client SSL certificate verify error: (23:certificate revoked) while reading client request headers");
});

nginx_test!(strangers_are_told, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; ssl_verify_client on; ssl_client_certificate ca.pem; error_page 495 /bad; error_page 496 /none;
        location / { return 200 in; } location /bad { return 200 bad-$ssl_client_verify; } location /none { return 200 none; } }", |t| {
    let stranger = crate::harness::tls::Authority::new("another");
    let (certificate, key) = stranger.sign(&["stranger"], 1);
    to(t, "PORT", showing(&certificate, &key)).unwrap().ask("GET /").expect("400 bad-FAILED:unable to verify the first certificate");
    to(t, "PORT", trusting()).unwrap().ask("GET /").expect("400 none");
    to(t, "PORT", as_client(t)).unwrap().ask("GET /").expect("200 in");
});

nginx_test!(sessions_as_configured, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; ssl_session_tickets off; ssl_session_cache none; location / { return 200 $ssl_session_reused; } }
    server { listen 127.0.0.1:{PORT2} ssl; ssl_session_tickets on; ssl_session_cache off; ssl_session_timeout 1h; location / { return 200 $ssl_session_reused; } }
    server { listen 127.0.0.1:{PORT3} ssl; ssl_session_tickets off; ssl_session_cache builtin:100 shared:two:1m; location / { return 200 $ssl_session_reused; } }", |t| {
    for (port, version, expected) in [("PORT", &TLS12, "."), ("PORT2", &TLS12, "r"), ("PORT2", &TLS13, "r"), ("PORT3", &TLS12, "r")] {
        let config = trusting_with(&[version], &[]);
        to(t, port, config.clone()).unwrap().ask("GET /").expect("200 .");
        to(t, port, config).unwrap().ask("GET /").expect(&format!("200 {expected}"));
    }
});

#[test]
fn tickets_survive_a_reload_by_their_key_file() {
    let conf = "worker_processes 2; events { } http { ssl_certificate cert.pem; ssl_certificate_key key.pem; ssl_session_ticket_key ticket.key;
        server { listen 127.0.0.1:{PORT} ssl; location / { return 200 $ssl_session_reused; } } }";
    Site::whole(conf).with_file("ticket.key", [7; 80]).run(|t| {
        let config = trusting_with(&[&TLS12], &[]);
        t.try_tls("localhost", config.clone()).unwrap().ask("GET /").expect("200 .");
        let before = t.expect_procs("worker process", 2);
        t.signal(nix::sys::signal::Signal::SIGHUP);
        crate::harness::wait_for(|| {
            before.iter().all(|p| !crate::harness::procs::is_alive(p.pid)).then_some(())
        })
        .expect("new workers");
        t.try_tls("localhost", config).unwrap().ask("GET /").expect("200 r");
    });
}

nginx_test!(ciphers_and_curves, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; ssl_prefer_server_ciphers on; ssl_ecdh_curve prime256v1;
        ssl_buffer_size 4k; location / { return 200 $ssl_cipher|$ssl_curve|$ssl_ciphers; } }
    server { listen 127.0.0.1:{PORT2} ssl; ssl_ciphers HIGH:!aNULL:!MD5; ssl_ecdh_curve auto; location / { return 200 $ssl_cipher; } }", |t| {
    to(t, "PORT", trusting_with(&[&TLS12], &[])).unwrap().ask("GET /").expect("200 ECDHE-ECDSA-AES256-GCM-SHA384|prime256v1|*ECDHE-ECDSA-AES256-GCM-SHA384*");
    to(t, "PORT2", trusting_with(&[&TLS12], &[])).unwrap().ask("GET /").expect("200 ECDHE-ECDSA-*");
});

nginx_test!(
    early_data_is_off_unless_asked_for,
    "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; location / { return 200 .$ssl_early_data.; } }",
    |t| {
        let config = trusting_with(&[&TLS13], &[]);
        for _ in 0..2 {
            to(t, "PORT", config.clone()).unwrap().ask("GET /").expect("200 ..");
        }
    }
);

#[test]
fn what_is_refused() {
    let server = |inside: &str| {
        format!(
            "events {{ }} http {{ server {{ listen 127.0.0.1:{{PORT}} ssl; ssl_certificate cert.pem; {inside} }} }}"
        )
    };
    let cases = [
        ("ssl_certificate_key client.key;", "SSL_CTX_use_PrivateKey(\"*/client.key\") failed"),
        (
            "ssl_certificate_key key.pem; ssl_ciphers nothing;",
            "SSL_CTX_set_cipher_list(\"nothing\") failed",
        ),
        ("ssl_certificate_key key.pem; ssl_protocols SSLv9;", "invalid value \"SSLv9\""),
        (
            "ssl_certificate_key key.pem; ssl_verify_client on;",
            "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
        ),
        ("ssl_certificate_key key.pem; ssl_verify_client maybe;", "invalid value \"maybe\""),
        (
            "ssl_certificate_key key.pem; ssl_session_cache shared:s;",
            "invalid session cache \"shared:s\"",
        ),
        (
            "ssl_certificate_key key.pem; ssl_session_cache shared:s:1k;",
            "session cache \"shared:s:1k\" is too small",
        ),
        (
            "ssl_certificate_key key.pem; ssl_ecdh_curve nothing;",
            "SSL_CTX_set1_curves_list(\"nothing\") failed",
        ),
        ("ssl_certificate_key none.key;", "cannot load certificate key \"{DIR}/none.key\""),
        ("ssl_certificate_key key.pem; ssl_crl none.pem;", "none.pem"),
        (
            "ssl_certificate_key key.pem; ssl_session_ticket_key none;",
            "none\" failed (2: No such file or directory)",
        ),
        ("", "no \"ssl_certificate_key\" is defined for certificate \"*cert.pem\""),
    ];
    let refuses =
        |(inside, said): &(&str, &str)| crate::harness::refuses_conf(&server(inside), said).err();
    let differences: Vec<String> = cases.iter().filter_map(refuses).collect();
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}
