//! `secure_link`, `secure_link_md5`, `secure_link_secret`.

use md5::{Digest, Md5};

nginx_test!(
    links_that_were_made_by_us,
    "
    server {
        location / { secure_link $arg_h,$arg_e; secure_link_md5 $secure_link_expires$uri-key;
            return 200 [$secure_link][$secure_link_expires]; }
        location /old/ { secure_link_secret key; return 200 [$secure_link]; } }",
    |t| {
        let until = |at: &str| {
            let hash = Md5::digest(format!("{at}/x-key"));
            let text = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, hash);
            format!("GET /x?h={text}&e={at}")
        };
        t.ask(&until("99999999999")).expect("200 [1][99999999999]");
        t.ask(&until("1")).expect("200 [0][1]");
        t.ask(&until("0")).expect("200 [][]");
        t.ask("GET /x?h=AAAAAAAAAAAAAAAAAAAAAA&e=99999999999").expect("200 [][99999999999]");
        let hash: String = Md5::digest("a/bkey").iter().map(|b| format!("{b:02x}")).collect();
        t.ask(&format!("GET /old/{hash}/a/b")).expect("200 [a/b]");
        t.ask(&format!("GET /old/{hash}/a/c")).expect("200 []");
    }
);
