//! `ngx.socket.udp` and its methods.

use super::functions;
use super::handle::{
    Thing, element_thing, need_integer, need_string, need_table, push_object, push_thing, remember,
    set_element,
};
use super::socket::{HANDLE, check_phase, current_life, parse_local, payload};
use crate::log;
use crate::lua::socket::{self, Around, DATAGRAM_MAX, Udp};
use crate::lua::vm::{self, Stack, Value};
use std::ffi::c_int;
use std::rc::Rc;
use std::time::Duration;

const TIMEOUT: c_int = 2;
const BIND: c_int = 3;

/// The metatable.
static UDP: u8 = 4;

functions! {
    udp_new => |stack| {
        if stack.top() != 0 {
            return Err(format!("expecting zero arguments, but got {}", stack.top()).into());
        }
        check_phase()?;
        push_object(stack, &UDP, 3);
        Ok(1)
    };
    udp_bind => bind;
    udp_setpeername => set_peer_name;
    udp_settimeout => set_timeout;
    udp_send => send;
    udp_receive => receive;
    udp_close => close;
}

/// Keeps the metatable that stands at `at`.
pub fn setup(stack: &mut Stack, at: c_int) {
    remember(stack, &UDP, at);
}

fn udp_at(stack: &mut Stack) -> Option<Rc<Udp>> {
    match element_thing(stack, 1, HANDLE as usize) {
        Some(Thing::Udp(udp)) => Some(udp),
        _ => None,
    }
}

fn check_owner(udp: &Udp) -> Result<(), Vec<u8>> {
    match udp.belongs_to(&current_life()?) {
        true => Ok(()),
        false => Err(b"bad request".to_vec()),
    }
}

fn bind(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 2 {
        return Err(format!("expecting 2 arguments, but got {}", stack.top()).into());
    }
    check_phase()?;
    need_table(stack, 1)?;
    let text = need_string(stack, 2)?;
    if parse_local(&String::from_utf8_lossy(&text), 0).is_none() {
        return Ok(stack.refuse("bad address"));
    }
    stack.push_text(&text);
    set_element(stack, 1, BIND);
    stack.push(&Value::Number(1.0));
    Ok(1)
}

fn set_peer_name(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count != 2 && count != 3 {
        return Err(format!(
            "ngx.socket.udp setpeername: expecting 2 or 3 arguments (including the object), but \
             seen {count}"
        )
        .into());
    }
    let life = check_phase()?;
    need_table(stack, 1)?;
    let host = need_string(stack, 2)?;
    let port = match count {
        3 => need_integer(stack, 3)?,
        _ => 0,
    };
    let Ok(port) = u16::try_from(port) else {
        return Ok(stack.refuse(format!("bad port number: {port}")));
    };
    let around = Around::current();
    let udp = match udp_at(stack) {
        Some(udp) => {
            check_owner(&udp)?;
            if udp.is_busy() {
                return Ok(stack.refuse("socket busy"));
            }
            udp.renew(&around);
            udp
        }
        None => {
            let udp = Udp::new(&life, &around);
            push_thing(stack, Thing::Udp(udp.clone()));
            set_element(stack, 1, HANDLE);
            udp
        }
    };
    apply_timeout(stack, &udp);
    stack.push_element(1, BIND as usize);
    let bind = stack.text(-1).map(|text| String::from_utf8_lossy(text).into_owned());
    let bind = bind.and_then(|text| parse_local(&text, 0));
    let host = String::from_utf8_lossy(&host).into_owned();
    socket::set_peer(stack, &udp, host, port, bind)
}

fn set_timeout(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 2 {
        return Err(format!(
            "ngx.socket settimeout: expecting at least 2 arguments (including the object) but \
             seen {}",
            stack.top()
        )
        .into());
    }
    need_table(stack, 1)?;
    let number = stack.number(2).unwrap_or_default();
    stack.push(&Value::Number(number.trunc()));
    set_element(stack, 1, TIMEOUT);
    if let Some(udp) = udp_at(stack) {
        apply_timeout(stack, &udp);
    }
    Ok(0)
}

fn apply_timeout(stack: &mut Stack, udp: &Udp) {
    stack.push_element(1, TIMEOUT as usize);
    let number = stack.number(-1).unwrap_or_default() as i64;
    stack.pop(1);
    udp.timeout.set(match number {
        n if n > 0 => Duration::from_millis(n as u64),
        _ => udp.around().settings.read_timeout,
    });
}

/// The socket of a send or receive, or how many results say why there is none.
fn open(stack: &mut Stack, doing: &str) -> Result<Result<Rc<Udp>, c_int>, Vec<u8>> {
    need_table(stack, 1)?;
    current_life()?;
    let Some(udp) = udp_at(stack).filter(|udp| udp.is_open()) else {
        if Around::current().settings.log_errors {
            let message = format!("attempt to {doing} data on a closed socket");
            vm::with_request(|r| log::error!(&*r, "{message}"));
        }
        return Ok(Err(stack.refuse("closed")));
    };
    check_owner(&udp)?;
    match udp.is_busy() {
        true => Ok(Err(stack.refuse("socket busy"))),
        false => Ok(Ok(udp)),
    }
}

fn send(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 2 {
        return Err(format!(
            "expecting 2 arguments (including the object), but got {}",
            stack.top()
        )
        .into());
    }
    let udp = match open(stack, "send")? {
        Ok(udp) => udp,
        Err(results) => return Ok(results),
    };
    let bytes = payload(stack, 2)?;
    match udp.send(&bytes) {
        Ok(()) => {
            stack.push(&Value::Number(1.0));
            Ok(1)
        }
        Err(fault) => Ok(stack.refuse(&*fault.text())),
    }
}

fn receive(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count != 1 && count != 2 {
        return Err(
            format!("expecting 1 or 2 arguments (including the object), but got {count}").into()
        );
    }
    let udp = match open(stack, "receive")? {
        Ok(udp) => udp,
        Err(results) => return Ok(results),
    };
    let max = match count {
        2 => usize::try_from(need_integer(stack, 2)?).unwrap_or_default(),
        _ => DATAGRAM_MAX,
    };
    socket::receive_datagram(stack, &udp, max)
}

fn close(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 1 {
        return Err(format!(
            "expecting 1 argument (including the object) but seen {}",
            stack.top()
        )
        .into());
    }
    current_life()?;
    need_table(stack, 1)?;
    let Some(udp) = udp_at(stack).filter(|udp| udp.is_open()) else {
        return Ok(stack.refuse("closed"));
    };
    check_owner(&udp)?;
    if udp.is_busy() {
        return Ok(stack.refuse("socket busy"));
    }
    udp.close();
    stack.push(&Value::Number(1.0));
    Ok(1)
}
