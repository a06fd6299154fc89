//! The nginx.conf language: words, blocks, includes, directive tables. Knows no directive.
