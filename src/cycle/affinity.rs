//! `worker_cpu_affinity`: which processors a worker may run on.
use crate::sys::process::processors;
use crate::sys::user::CPUS_MAX;

/// Masks for the workers, in order, or one pool from which each worker gets a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// One processor of these per worker, going round.
    Auto(Vec<usize>),
    /// A set of processors per worker; the last one is for all that follow.
    Masks(Vec<Vec<usize>>),
}

impl Affinity {
    /// Reads `auto [mask]` or `mask …`. The error is nginx's sentence.
    pub fn parse(words: &[&str]) -> Result<Affinity, String> {
        match words {
            ["auto"] => Ok(Affinity::Auto((0..processors().min(CPUS_MAX)).collect())),
            ["auto", mask] => Ok(Affinity::Auto(parse_mask(mask)?)),
            ["auto", ..] => {
                let what = "invalid number of arguments in \"worker_cpu_affinity\" directive";
                Err(what.into())
            }
            masks => masks.iter().map(|mask| parse_mask(mask)).collect::<Result<_, _>>(),
        }
    }

    /// The processors of worker `seat`; empty means all.
    pub fn of_worker(&self, seat: usize) -> &[usize] {
        match self {
            Affinity::Auto(cpus) if cpus.is_empty() => &[],
            Affinity::Auto(cpus) => std::slice::from_ref(&cpus[seat % cpus.len()]),
            Affinity::Masks(masks) => masks.get(seat).or(masks.last()).map_or(&[], Vec::as_slice),
        }
    }

    /// Whether there is one mask, or as many as workers.
    pub fn fits(&self, workers: usize) -> bool {
        match self {
            Affinity::Auto(_) => true,
            Affinity::Masks(masks) => masks.len() == 1 || masks.len() == workers,
        }
    }
}

impl FromIterator<Vec<usize>> for Affinity {
    fn from_iter<I: IntoIterator<Item = Vec<usize>>>(masks: I) -> Affinity {
        Affinity::Masks(masks.into_iter().collect())
    }
}

/// `0101` is processors 0 and 2: the last digit is the first processor.
fn parse_mask(mask: &str) -> Result<Vec<usize>, String> {
    if mask.len() > CPUS_MAX {
        return Err(format!("\"worker_cpu_affinity\" supports up to {CPUS_MAX} CPUs only"));
    }
    let mut cpus = Vec::new();
    for (number, digit) in mask.chars().rev().filter(|c| *c != ' ').enumerate() {
        match digit {
            '0' => {}
            '1' => cpus.push(number),
            other => {
                return Err(format!("invalid character \"{other}\" in \"worker_cpu_affinity\""));
            }
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_from_the_right() {
        let masks = Affinity::parse(&["0001", "1010"]).unwrap();
        assert_eq!(masks.of_worker(0), [0]);
        assert_eq!(masks.of_worker(1), [1, 3]);
        assert_eq!(masks.of_worker(7), [1, 3]);
        assert!(masks.fits(2) && !masks.fits(3));
        assert!(Affinity::parse(&["012"]).unwrap_err().contains("invalid character \"2\""));
    }

    #[test]
    fn auto_goes_round() {
        let auto = Affinity::parse(&["auto", "101"]).unwrap();
        assert_eq!((auto.of_worker(0), auto.of_worker(1)), (&[0][..], &[2][..]));
        assert_eq!(auto.of_worker(2), [0]);
        assert!(Affinity::parse(&["auto", "1", "1"]).is_err());
        assert!(Affinity::parse(&["auto", "000"]).unwrap().of_worker(1).is_empty());
    }
}
