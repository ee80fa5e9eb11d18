//! CPU masks as SPDK writes them: hexadecimal digits with or without 0x, or a list in brackets (`[0,2-3]`).

use std::fmt;

/// As many as the kernel's cpu_set_t has.
const MAX_CPU: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuMask(Vec<usize>);

impl CpuMask {
    pub fn parse(text: &str) -> Result<CpuMask, String> {
        let text = text.trim();
        let mut cpus = match text.strip_prefix('[') {
            Some(list) => parse_list(list.strip_suffix(']').ok_or("a list of processors ends with `]`")?)?,
            None => parse_mask(text)?,
        };
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.is_empty() {
            return Err(format!("CPU mask `{text}` names no processor"));
        }
        Ok(CpuMask(cpus))
    }

    pub fn from_cpus(cpus: impl IntoIterator<Item = usize>) -> CpuMask {
        let mut cpus: Vec<usize> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        CpuMask(cpus)
    }

    /// Ascending.
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }

    /// The first processor that is here and not there.
    pub fn outside(&self, of: &CpuMask) -> Option<usize> {
        self.0.iter().copied().find(|cpu| !of.0.contains(cpu))
    }
}

fn parse_mask(text: &str) -> Result<Vec<usize>, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.is_empty() {
        return Err(format!("CPU mask `{text}` has no digits; it looks like 0x3 or [0-1]"));
    }
    let mut cpus = Vec::new();
    // SPDK and DPDK allow commas between groups of digits, as the kernel writes masks.
    for (place, digit) in digits.chars().filter(|c| *c != ',').rev().enumerate() {
        let value = digit
            .to_digit(16)
            .ok_or_else(|| format!("`{digit}` in CPU mask `{text}` is no hexadecimal digit"))?;
        for bit in (0..4).filter(|bit| value >> bit & 1 == 1) {
            cpus.push(cpu_number(place * 4 + bit)?);
        }
    }
    Ok(cpus)
}

fn parse_list(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let number = |text: &str| {
            text.trim()
                .parse()
                .map_err(|_| format!("`{text}` in the list of processors `[{text}]` is no number"))
        };
        let (first, last): (usize, usize) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("`{part}` in the list of processors runs backwards"));
        }
        cpu_number(last)?;
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

fn cpu_number(cpu: usize) -> Result<usize, String> {
    if cpu < MAX_CPU {
        Ok(cpu)
    } else {
        Err(format!("processor {cpu} is beyond the {MAX_CPU} that a mask can hold"))
    }
}

/// Hexadecimal without 0x, as SPDK's configuration has it.
impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.0.last().map_or(1, |cpu| cpu / 4 + 1);
        for place in (0..places).rev() {
            let bits =
                self.0.iter().filter(|cpu| **cpu / 4 == place).fold(0u32, |bits, cpu| bits | 1 << (cpu % 4));
            write!(f, "{bits:x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_notations() {
        let mask = |text| CpuMask::parse(text).unwrap().cpus().to_vec();
        assert_eq!(mask("0x3"), [0, 1]);
        assert_eq!(mask("14"), [2, 4]);
        assert_eq!(mask("0x1,00000000"), [32]);
        assert_eq!(mask("[0]"), [0]);
        assert_eq!(mask("[3, 0-1]"), [0, 1, 3]);
        for bad in ["", "0x", "0x0", "0xg", "[", "[]", "[a]", "[3-1]", "[1024]", "-1", "[0-99999999999]"] {
            assert!(CpuMask::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(CpuMask::parse("0x4").unwrap().outside(&CpuMask::parse("3").unwrap()), Some(2));
    }

    proptest! {
        #[test]
        fn written_and_read_again(cpus in proptest::collection::btree_set(0usize..MAX_CPU, 1..20)) {
            let mask = CpuMask::from_cpus(cpus);
            prop_assert_eq!(&CpuMask::parse(&mask.to_string()).unwrap(), &mask);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,20}") {
            let _ = CpuMask::parse(&text);
        }
    }
}
