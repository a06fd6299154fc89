//! DNS answers: any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::proto::dns::{Question, read_answer, write_query};

fuzz_target!(|input: &[u8]| {
    let Ok(answer) = read_answer(input, false) else { return };
    assert!(answer.services.iter().all(|service| service.weight > 0));
    let _ = write_query(answer.id, answer.name.as_bytes(), answer.question, &mut Vec::new());
    if let Some(alias) = answer.alias {
        let _ = write_query(answer.id, alias.as_bytes(), Question::A, &mut Vec::new());
    }
});
