//! `autoindex`.

nginx_test!(
    folders_are_listed,
    "
    server { root {DIR}/html; autoindex on;
        location /json/ { autoindex_format json; alias {DIR}/html/; }
        location /xml/ { autoindex_format xml; alias {DIR}/html/; }
        location /jsonp/ { autoindex_format jsonp; alias {DIR}/html/; }
        location /sizes/ { autoindex_exact_size off; alias {DIR}/html/dir2/; }
        location /list/ { alias {DIR}/html/; }
        location /off/ { autoindex off; alias {DIR}/html/; } }",
    |t| {
        t.file("html/b.txt", "12345");
        t.file("html/a&<b>", "x");
        t.file("html/dir/x", "");
        t.file("html/.hidden", "");
        t.file("html/big", vec![b'x'; 5000]);
        t.file("html/dir2/kilo", vec![b'x'; 50_000]);
        t.check("
        GET /list/     -> 200 <html>\\r\\n<head><title>Index of /list/</title></head>\\r\\n<body>\\r\\n<h1>Index of /list/</h1><hr><pre><a href=\"../\">../</a>\\r\\n<a href=\"dir/\">dir/</a> * -\\r\\n*<a href=\"a%26%3Cb%3E\">a&amp;&lt;b&gt;</a>*<a href=\"b.txt\">b.txt</a> * 5\\r\\n<a href=\"big\">big</a> * 5000\\r\\n</pre><hr></body>\\r\\n</html>\\r | Content-Type: text/html
        GET /sizes/    -> 200 *<a href=\"kilo\">kilo</a> *   49K\\r\\n*
        GET /xml/      -> 200 <?xml version=\"1.0\"?>\\r\\n<list>\\r\\n<directory mtime=\"*Z\">dir</directory>*<file mtime=\"*Z\" size=\"5\">b.txt</file>\\r\\n*</list>\\r | Content-Type: text/xml; charset=utf-8
        GET /jsonp/?callback=f -> 200 /* callback */\\r\\nf([\\r\\n{ *\\r\\n]); | Content-Type: application/javascript
        GET /off/      -> 403
        HEAD /         -> 200
        GET /dir/      -> 200 *Index of /dir/*
    ");
        let listing = t.ask("GET /json/").expect("200 | Content-Type: application/json");
        let entries: serde_json::Value = serde_json::from_slice(&listing.body).unwrap();
        let names: Vec<_> =
            entries.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["dir", "dir2", "a&<b>", "b.txt", "big"]);
        assert_eq!((&entries[0]["type"], &entries[3]["size"]), (&"directory".into(), &5.into()));
    }
);
