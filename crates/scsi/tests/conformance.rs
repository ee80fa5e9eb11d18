//! Commands and their answers, byte by byte where the standards fix the bytes. Each row: what it shows, the CDB, the
//! Data-Out, the answer.

use nvlane_scsi::{
    Attention, Cdb, Command, Disk, Limits, Outcome, Provisioning, Status, Unit, absent, execute,
    parameter_length, well_known,
};

fn disk() -> Disk {
    Disk {
        uuid: *b"\x00\x11\x22\x33\x44\x55\x46\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
        vendor: Disk::VENDOR.into(),
        product: "Malloc disk".into(),
        revision: Disk::REVISION.into(),
        serial: "00112233445546778899aabbccddeeff".into(),
        block_size: 512,
        physical_exponent: 3,
        read_only: false,
        write_cache: true,
        provisioning: Provisioning { unmap: true, unmapped_is_zero: true, thin: true },
        limits: Limits {
            transfer_blocks: 0x4000,
            unmap_blocks: 0x20_0000,
            unmap_descriptors: 256,
            write_same_blocks: 0x2_0000,
            unmap_granularity: 8,
        },
    }
}

const BLOCKS: u64 = 0x1_0000;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

struct Nexus {
    disk: Disk,
    blocks: u64,
    unit: Unit,
}

impl Nexus {
    /// A unit whose initiator has heard that the power is on.
    fn new(disk: Disk) -> Nexus {
        let mut nexus = Nexus { unit: Unit::powered_on(), disk, blocks: BLOCKS };
        assert_eq!(nexus.run("00 00 00 00 00 00", ""), "check 6/29/00");
        nexus
    }

    fn run(&mut self, cdb: &str, parameters: &str) -> String {
        let cdb = Cdb::new(&bytes(cdb));
        let mut parameters = bytes(parameters);
        parameters.truncate(parameter_length(&self.disk, &cdb));
        let mut data = Vec::new();
        let command = Command { cdb: &cdb, parameters: &parameters };
        tell(execute(&self.disk, self.blocks, &mut self.unit, command, &mut data), &data)
    }
}

fn tell(outcome: Outcome, data: &[u8]) -> String {
    match outcome {
        Outcome::Good => "good".into(),
        Outcome::Data => hex(data),
        Outcome::CheckCondition(sense) => {
            let field = sense.field.map_or(String::new(), |field| {
                let place = if field.in_cdb { "cdb" } else { "list" };
                let bit = field.bit.map_or(String::new(), |bit| format!(".{bit}"));
                format!(" {place} {}{bit}", field.byte)
            });
            format!("check {:x}/{:02x}/{:02x}{field}", sense.key as u8, sense.code, sense.qualifier)
        }
        Outcome::Operation(operation) => format!("{operation:?}"),
    }
}

fn table(nexus: &mut Nexus, rows: &[(&str, &str, &str, &str)]) {
    for (what, cdb, parameters, answer) in rows {
        let is_hex = answer.chars().all(|letter| letter.is_ascii_hexdigit() || letter.is_whitespace());
        // An answer in bytes may be laid out over several lines.
        let expected = if is_hex { hex(&bytes(answer)) } else { (*answer).to_string() };
        assert_eq!(nexus.run(cdb, parameters), expected, "{what}: {cdb}");
    }
}

#[test]
fn inquiry_and_vital_product_data() {
    let mut nexus = Nexus::new(disk());
    table(
        &mut nexus,
        &[
            (
                "standard data",
                "12 00 00 00 60 00",
                "",
                "00 00 06 12 5b 00 00 02 4e564c414e452020 4d616c6c6f63206469736b2020202020 30303031
                 00000000000000000000000000000000000000000000 00a0 0460 04c0
                 00000000000000000000000000000000 00000000000000000000000000000000",
            ),
            ("the first 36 bytes", "12 00 00 00 05 00", "", "00 00 06 12 5b"),
            ("an allocation length of zero is no error", "12 00 00 00 00 00", "", "good"),
            ("a page without EVPD", "12 00 80 00 ff 00", "", "check 5/24/00 cdb 2"),
            ("CMDDT", "12 02 00 00 ff 00", "", "check 5/24/00 cdb 1.1"),
            ("an unknown page", "12 01 b9 00 ff 00", "", "check 5/24/00 cdb 2"),
            ("the list of pages", "12 01 00 00 ff 00", "", "00 00 00 08 00 80 83 86 87 b0 b1 b2"),
            (
                "serial number",
                "12 01 80 00 ff 00",
                "",
                "00 80 00 20 3030313132323333343435353436373738383939616162626363646465656666",
            ),
            (
                "designators",
                "12 01 83 01 00 00",
                "",
                "00 83 00 4e
                 01 03 00 08 35401c29d52a2355
                 01 0a 00 12 10 00 00112233445546778899aabbccddeeff
                 02 01 00 28 4e564c414e452020
                 3030313132323333343435353436373738383939616162626363646465656666",
            ),
            (
                "block limits",
                "12 01 b0 00 ff 00",
                "",
                "00 b0 00 3c 01 00 0008 00004000 00000000 00000000 00200000 00000100 00000008 80000000
                 0000000000020000 0000000000000000000000000000000000000000",
            ),
            ("a medium that does not turn", "12 01 b1 00 08 00", "", "00 b1 00 3c 00 01 00 00"),
            ("provisioning", "12 01 b2 00 ff 00", "", "00 b2 00 04 00 e4 02 00"),
            ("policy of mode pages", "12 01 87 00 ff 00", "", "00 87 00 04 3f ff 03 00"),
        ],
    );
}

#[test]
fn capacity() {
    let mut nexus = Nexus::new(disk());
    table(
        &mut nexus,
        &[
            ("READ CAPACITY (10)", "25 00 00000000 0000 00 00", "", "0000ffff 00000200"),
            ("an address without PMI", "25 00 00000001 0000 00 00", "", "check 5/24/00 cdb 2"),
            (
                "READ CAPACITY (16)",
                "9e 10 0000000000000000 00000020 00 00",
                "",
                "000000000000ffff 00000200 00 03 c0 00 00000000000000000000000000000000",
            ),
            ("cut short", "9e 10 0000000000000000 0000000c 00 00", "", "000000000000ffff 00000200"),
            (
                "an unknown service action",
                "9e 13 0000000000000000 00000020 00 00",
                "",
                "check 5/24/00 cdb 1.4",
            ),
            (
                "GET LBA STATUS",
                "9e 12 000000000000fff0 00000018 00 00",
                "",
                "00000014 00000000 000000000000fff0 00000010 00 000000",
            ),
            ("behind the end", "9e 12 0000000000010000 00000018 00 00", "", "check 5/21/00"),
        ],
    );
    nexus.blocks = 1 << 33;
    assert_eq!(nexus.run("25 00 00000000 0000 00 00", ""), hex(&bytes("ffffffff 00000200")));
}

#[test]
fn reads_and_writes() {
    let read = |lba, blocks, through| {
        format!("Read {{ extent: Extent {{ lba: {lba}, blocks: {blocks} }}, through: {through} }}")
    };
    let write = |lba, blocks, through| read(lba, blocks, through).replace("Read", "Write");
    table(
        &mut Nexus::new(disk()),
        &[
            ("READ (6)", "08 00 01 02 03 00", "", &read(0x102, 3, false)),
            ("READ (6) of 256 blocks", "08 00 00 00 00 00", "", &read(0, 256, false)),
            ("the address of READ (6) has 21 bits", "08 e0 01 02 03 00", "", &read(0x102, 3, false)),
            ("WRITE (6)", "0a 00 00 01 01 00", "", &write(1, 1, false)),
            ("READ (10)", "28 00 00000010 00 0008 00", "", &read(16, 8, false)),
            ("READ (10) FUA and DPO", "28 18 00000010 00 0008 00", "", &read(16, 8, true)),
            ("READ (12)", "a8 00 00000010 00000008 00 00", "", &read(16, 8, false)),
            ("READ (16)", "88 00 0000000000000010 00000008 00 00", "", &read(16, 8, false)),
            ("WRITE (10) FUA", "2a 08 00000010 00 0008 00", "", &write(16, 8, true)),
            ("WRITE (12)", "aa 00 00000010 00000008 00 00", "", &write(16, 8, false)),
            ("WRITE (16)", "8a 00 0000000000000010 00000008 00 00", "", &write(16, 8, false)),
            ("to the last block", "28 00 0000ffff 00 0001 00", "", &read(0xffff, 1, false)),
            ("beyond it", "28 00 0000ffff 00 0002 00", "", "check 5/21/00"),
            ("far beyond it", "88 00 ffffffffffffffff 00000001 00 00", "", "check 5/21/00"),
            ("nothing, at the end", "28 00 00010000 00 0000 00", "", &read(0x10000, 0, false)),
            ("nothing, beyond it", "28 00 00010001 00 0000 00", "", "check 5/21/00"),
            ("more than the limit", "a8 00 00000000 00004001 00 00", "", "check 5/24/00"),
            ("RDPROTECT", "28 20 00000000 00 0001 00", "", "check 5/24/00 cdb 1.7"),
            ("NACA", "28 00 00000000 00 0001 04", "", "check 5/24/00 cdb 9.2"),
            ("LINK", "88 00 0000000000000000 00000001 00 01", "", "check 5/24/00 cdb 15.0"),
            ("an unknown code", "c1 00 00 00 00 00", "", "check 5/20/00"),
            (
                "COMPARE AND WRITE is not offered",
                "89 00 0000000000000000 000000 01 00 00",
                "",
                "check 5/20/00",
            ),
        ],
    );
}

#[test]
fn verify_and_synchronize() {
    let extent = "extent: Extent { lba: 1, blocks: 2 }";
    table(
        &mut Nexus::new(disk()),
        &[
            ("VERIFY", "2f 00 00000001 00 0002 00", "", &format!("Verify {{ {extent}, compare: Nothing }}")),
            ("BYTCHK 01", "2f 02 00000001 00 0002 00", "", &format!("Verify {{ {extent}, compare: Data }}")),
            ("BYTCHK 11", "2f 06 00000001 00 0002 00", "", &format!("Verify {{ {extent}, compare: Block }}")),
            ("BYTCHK 10", "2f 04 00000001 00 0002 00", "", "check 5/24/00 cdb 1.2"),
            (
                "VERIFY (12)",
                "af 02 00000001 00000002 00 00",
                "",
                &format!("Verify {{ {extent}, compare: Data }}"),
            ),
            (
                "VERIFY (16)",
                "8f 02 0000000000000001 00000002 00 00",
                "",
                &format!("Verify {{ {extent}, compare: Data }}"),
            ),
            ("VRPROTECT", "2f 20 00000001 00 0002 00", "", "check 5/24/00 cdb 1.7"),
            ("VERIFY beyond", "2f 00 0000ffff 00 0002 00", "", "check 5/21/00"),
            (
                "WRITE AND VERIFY",
                "2e 02 00000001 00 0002 00",
                "",
                &format!("WriteVerify {{ {extent}, compare: true }}"),
            ),
            ("BYTCHK 11", "2e 06 00000001 00 0002 00", "", "check 5/24/00 cdb 1.2"),
            ("SYNCHRONIZE CACHE (10)", "35 00 00000000 00 0000 00", "", "Flush"),
            ("IMMED", "35 02 00000000 00 0000 00", "", "Flush"),
            ("SYNCHRONIZE CACHE (16)", "91 00 0000000000000000 00000000 00 00", "", "Flush"),
            ("of what is not there", "91 00 0000000000010000 00000001 00 00", "", "check 5/21/00"),
        ],
    );
    let mut cacheless = Nexus::new(Disk { write_cache: false, ..disk() });
    assert_eq!(cacheless.run("35 00 00000000 00 0000 00", ""), "good");
    assert!(cacheless.run("2a 08 00000000 00 0001 00", "").ends_with("through: false }"));
}

#[test]
fn unmap_and_write_same() {
    let zeroes = "00".repeat(512);
    let ones = "01".repeat(512);
    let same = |pattern, unmap| {
        format!("WriteSame {{ extent: Extent {{ lba: 1, blocks: 2 }}, pattern: {pattern}, unmap: {unmap} }}")
    };
    table(
        &mut Nexus::new(disk()),
        &[
            (
                "UNMAP: a range, an empty one, another",
                "42 00 00000000 00 0038 00",
                "0036 0030 00000000 0000000000000010 00000008 00000000 0000000000000000 00000000 00000000
                 000000000000fff8 00000008 00000000",
                "Unmap { extents: [Extent { lba: 16, blocks: 8 }, Extent { lba: 65528, blocks: 8 }] }",
            ),
            ("no list", "42 00 00000000 00 0000 00", "", "good"),
            ("half a header", "42 00 00000000 00 0004 00", "00000000", "check 5/1a/00"),
            ("no descriptors", "42 00 00000000 00 0008 00", "0006 0000 00000000", "good"),
            ("half a descriptor", "42 00 00000000 00 0010 00", "000e 0008 00000000 0000000000000010", "good"),
            (
                "beyond the end",
                "42 00 00000000 00 0018 00",
                "0016 0010 00000000 000000000000ffff 00000002 00000000",
                "check 5/21/00",
            ),
            ("ANCHOR", "42 01 00000000 00 0018 00", "", "check 5/24/00 cdb 1.0"),
            ("WRITE SAME (10)", "41 00 00000001 00 0002 00", &ones, &same("Block", false)),
            ("of zeroes", "41 00 00000001 00 0002 00", &zeroes, &same("Zeroes", false)),
            ("UNMAP", "41 08 00000001 00 0002 00", &zeroes, &same("Zeroes", true)),
            ("UNMAP of a pattern", "93 08 0000000000000001 00000002 00 00", &ones, &same("Block", true)),
            ("NDOB", "93 01 0000000000000001 00000002 00 00", "", &same("Zeroes", false)),
            ("NDOB of the short command", "41 01 00000001 00 0002 00", &ones, "check 5/24/00 cdb 1.0"),
            ("no blocks", "41 00 00000001 00 0000 00", &ones, "check 5/24/00 cdb 7"),
            ("too many", "93 00 0000000000000000 00020001 00 00", &ones, "check 5/24/00 cdb 10"),
            ("beyond the end", "93 00 000000000000ffff 00000002 00 00", &ones, "check 5/21/00"),
            ("LBDATA", "41 02 00000001 00 0002 00", &ones, "check 5/24/00 cdb 1.1"),
            ("ANCHOR", "93 18 0000000000000001 00000002 00 00", &ones, "check 5/24/00 cdb 1.4"),
        ],
    );
}

#[test]
fn unmap_keeps_its_limits() {
    let mut small = disk();
    small.limits.unmap_blocks = 8;
    small.limits.unmap_descriptors = 2;
    let range = |lba: u64, blocks: u32| format!("{lba:016x} {blocks:08x} 00000000");
    let mut nexus = Nexus::new(small);
    let list = |ranges: &[String]| format!("0000 {:04x} 00000000 {}", ranges.len() * 16, ranges.join(" "));
    let cdb = "42 00 00000000 00 0100 00";
    assert_eq!(nexus.run(cdb, &list(&[range(0, 4), range(8, 5)])), "check 5/26/00 list 32");
    assert_eq!(nexus.run(cdb, &list(&[range(0, 1), range(1, 1), range(2, 1)])), "check 5/26/00 list 2");
    assert!(nexus.run(cdb, &list(&[range(0, 4), range(8, 4)])).starts_with("Unmap"));
}

#[test]
fn without_provisioning() {
    let mut nexus = Nexus::new(Disk { provisioning: Provisioning::default(), ..disk() });
    table(
        &mut nexus,
        &[
            ("UNMAP", "42 00 00000000 00 0018 00", "", "check 5/20/00"),
            ("WRITE SAME with UNMAP", "93 09 0000000000000001 00000002 00 00", "", "check 5/24/00 cdb 1.3"),
            ("provisioning page", "12 01 b2 00 ff 00", "", "00 b2 00 04 00 00 00 00"),
            ("UNMAP is not reported", "a3 0c 01 42 0000 00000100 00 00", "", "00 01 00 00"),
        ],
    );
}

#[test]
fn mode_sense() {
    table(
        &mut Nexus::new(disk()),
        &[
            (
                "all pages",
                "1a 00 3f 00 ff 00",
                "",
                "43 00 10 08 00010000 00 000200
                 01 0a c0 00 0000 0000 0000 0000
                 08 12 04 00 0000 0000 0000 0000 0000 0000 0000 0000
                 0a 0a 02 10 0000 0000 0000 0000
                 1c 0a 08 00 0000 0000 0000 0000",
            ),
            ("caching, no block descriptor", "1a 08 08 00 04 00", "", "17 00 10 00"),
            (
                "what can be changed of caching",
                "1a 08 48 00 ff 00",
                "",
                "17 00 10 00 08 12 00 00 0000 0000 0000 0000 0000 0000 0000 0000",
            ),
            ("of control", "1a 08 4a 00 ff 00", "", "0f 00 10 00 0a 0a 04 00 08 00 0000 0000 0000"),
            ("saved values", "1a 08 c8 00 ff 00", "", "check 5/39/00"),
            ("an unknown page", "1a 08 02 00 ff 00", "", "check 5/24/00 cdb 2.5"),
            ("a subpage", "1a 08 0a 01 ff 00", "", "check 5/24/00 cdb 3"),
            (
                "MODE SENSE (10) with long addresses",
                "5a 10 08 00 00 00 00 00ff 00",
                "",
                "002a 00 10 01 00 0010 0000000000010000 00000000 00000200
                 08 12 04 00 0000 0000 0000 0000 0000 0000 0000 0000",
            ),
        ],
    );
    let mut read_only = Nexus::new(Disk { read_only: true, ..disk() });
    assert_eq!(read_only.run("1a 08 08 00 04 00", ""), "17 00 90 00");
    assert_eq!(read_only.run("2a 00 00000000 00 0001 00", ""), "check 7/27/00");
    assert_eq!(read_only.run("42 00 00000000 00 0000 00", ""), "check 7/27/00");
}

#[test]
fn mode_select() {
    let caching = |flags: &str| format!("08 12 {flags} 00 0000 0000 0000 0000 0000 0000 0000 0000");
    let mut nexus = Nexus::new(disk());
    let cases = [
        ("the cache as it is", "15 10 00 00 18 00", format!("00 00 00 00 {}", caching("04")), "good"),
        (
            "the cache off",
            "15 10 00 00 18 00",
            format!("00 00 00 00 {}", caching("00")),
            "check 5/26/00 list 6.2",
        ),
        (
            "RCD cannot be set",
            "15 10 00 00 18 00",
            format!("00 00 00 00 {}", caching("05")),
            "check 5/26/00 list 6.0",
        ),
        ("no PF", "15 00 00 00 18 00", format!("00 00 00 00 {}", caching("04")), "check 5/24/00 cdb 1.4"),
        ("SP", "15 11 00 00 18 00", format!("00 00 00 00 {}", caching("04")), "check 5/24/00 cdb 1.0"),
        ("half a page", "15 10 00 00 0c 00", format!("00 00 00 00 {}", caching("04")), "check 5/1a/00"),
        ("half a header", "15 10 00 00 03 00", "00 00 00".into(), "check 5/1a/00"),
        ("no list", "15 10 00 00 00 00", String::new(), "good"),
        (
            "a page of the wrong length",
            "15 10 00 00 0c 00",
            "00000000 08 0a 040000 0000 00".into(),
            "check 5/26/00 list 5",
        ),
        (
            "an unknown page",
            "15 10 00 00 0c 00",
            "00000000 02 06 000000 000000".into(),
            "check 5/26/00 list 4.5",
        ),
        (
            "a block size that it has not",
            "15 10 00 00 0c 00",
            "00 00 00 08 00000000 00 001000".into(),
            "check 5/26/00 list 9",
        ),
        ("its own block size", "15 10 00 00 0c 00", "00 00 00 08 ffffffff 00 000200".into(), "good"),
        (
            "a good page before a bad one changes nothing",
            "55 10 00 00 00 00 00 0028 00",
            format!("00000000 00000000 0a 0a 06 10 08 00 0000 0000 0000 {}", caching("00")),
            "check 5/26/00 list 22.2",
        ),
    ];
    for (what, cdb, list, answer) in cases {
        assert_eq!(nexus.run(cdb, &list), answer, "{what}");
    }
    assert!(!nexus.unit.modes().descriptor_sense && !nexus.unit.modes().write_protect);
    assert_eq!(nexus.run("15 10 00 00 10 00", "00000000 0a 0a 06 10 08 00 0000 0000 0000"), "good");
    assert!(nexus.unit.modes().descriptor_sense);
    assert_eq!(nexus.run("2a 00 00000000 00 0001 00", ""), "check 7/27/02");
    assert!(nexus.unit.is_plain(&nexus.disk, false) && !nexus.unit.is_plain(&nexus.disk, true));
}

#[test]
fn luns_and_sense_and_logs() {
    table(
        &mut Nexus::new(disk()),
        &[
            ("REPORT LUNS", "a0 00 00 000000 00000100 00 00", "", "00000008 00000000 0000000000000000"),
            ("all of them", "a0 00 02 000000 00000100 00 00", "", "00000008 00000000 0000000000000000"),
            ("well known ones", "a0 00 01 000000 00000100 00 00", "", "00000000 00000000"),
            ("an unknown selection", "a0 00 05 000000 00000100 00 00", "", "check 5/24/00 cdb 2"),
            ("REQUEST SENSE", "03 00 00 00 fc 00", "", "70 00 00 00000000 0a 00000000 00 00 00 000000"),
            ("in descriptors", "03 01 00 00 fc 00", "", "72 00 00 00 00 00 00 00"),
            ("LOG SENSE", "4d 00 40 00 00 00 00 00ff 00", "", "00 00 00 01 00"),
            ("with subpages", "4d 00 40 ff 00 00 00 00ff 00", "", "40 ff 00 04 00 00 00 ff"),
            ("an unknown log", "4d 00 6f 00 00 00 00 00ff 00", "", "check 5/24/00 cdb 2.5"),
            ("SEND DIAGNOSTIC", "1d 04 00 00 00 00", "", "good"),
            ("another self-test", "1d 20 00 00 00 00", "", "check 5/24/00 cdb 1.7"),
            ("PREVENT", "1e 00 00 00 01 00", "", "good"),
            ("RECEIVE DIAGNOSTIC RESULTS", "1c 01 00 00 ff 00", "", "check 5/20/00"),
            ("ATA PASS-THROUGH", "85 00 0000000000000000 00000000 00 00", "", "check 5/20/00"),
        ],
    );
}

#[test]
fn supported_commands() {
    let mut nexus = Nexus::new(disk());
    table(
        &mut nexus,
        &[
            ("READ (10)", "a3 0c 01 28 0000 00000100 00 00", "", "00 03 00 0a 28 18 ff ff ff ff 00 ff ff 04"),
            (
                "with timeouts",
                "a3 0c 81 28 0000 00000100 00 00",
                "",
                "00 83 00 0a 28 18 ff ff ff ff 00 ff ff 04 000a 00 00 00000000 00000000",
            ),
            (
                "READ CAPACITY (16)",
                "a3 0c 02 9e 0010 00000100 00 00",
                "",
                "00 03 00 10 9e 10 0000000000000000 ffffffff 00 04",
            ),
            ("a service action without one", "a3 0c 01 9e 0000 00000100 00 00", "", "check 5/24/00 cdb 2.2"),
            ("one where there is none", "a3 0c 02 28 0000 00000100 00 00", "", "check 5/24/00 cdb 2.2"),
            ("one that is not there", "a3 0c 02 9e 0013 00000100 00 00", "", "00 01 00 00"),
            ("either", "a3 0c 03 28 0000 00000004 00 00", "", "00 03 00 0a"),
            ("FORMAT UNIT", "a3 0c 01 04 0000 00000100 00 00", "", "00 01 00 00"),
            ("an unknown format", "a3 0c 04 04 0000 00000100 00 00", "", "check 5/24/00 cdb 2.2"),
            ("task management", "a3 0d 00 00 0000 00000004 00 00", "", "dc 03 00 00"),
            ("in full", "a3 0d 80 00 0000 00000100 00 00", "", "dc 03 00 0c 000000000000000000000000"),
            ("too little room", "a3 0d 00 00 0000 00000003 00 00", "", "check 5/24/00 cdb 6"),
        ],
    );
    let all = bytes(&nexus.run("a3 0c 00 00 0000 00001000 00 00", ""));
    assert_eq!(all.len() - 4, u32::from_be_bytes(all[..4].try_into().unwrap()) as usize);
    let codes: Vec<(u8, u16)> =
        all[4..].chunks(8).map(|entry| (entry[0], u16::from_be_bytes([entry[2], entry[3]]))).collect();
    assert!(codes.is_sorted() && codes.contains(&(0x42, 0)) && codes.contains(&(0x9e, 0x10)));
    // Each command that is reported has a map of its own length, and is carried out.
    for (code, action) in codes {
        let map = bytes(&nexus.run(&format!("a3 0c 03 {code:02x} {action:04x} 00000100 00 00"), ""));
        assert_eq!((map[1], map[4]), (3, code));
        assert_eq!(usize::from(map[3]), map.len() - 4);
        let answer = nexus.run(&format!("{code:02x} {action:02x}"), "");
        assert_ne!(answer, "check 5/20/00", "{code:02x}");
        nexus.unit = Unit::powered_on();
        nexus.run("00 00 00 00 00 00", "");
    }
}

#[test]
fn unit_attention_comes_first_and_once() {
    let mut nexus = Nexus { unit: Unit::powered_on(), disk: disk(), blocks: BLOCKS };
    let ready = "00 00 00 00 00 00";
    assert!(nexus.run("12 00 00 00 05 00", "").starts_with("00 00 06"), "INQUIRY is answered");
    assert!(nexus.run("a0 00 00 000000 00000100 00 00", "").starts_with("00"), "and REPORT LUNS");
    assert_eq!(nexus.run("28 00 00000000 00 0001 00", ""), "check 6/29/00");
    assert_eq!(nexus.run(ready, ""), "good");

    nexus.unit.raise(Attention::LunsChanged);
    nexus.unit.raise(Attention::CapacityChanged);
    assert!(!nexus.unit.is_plain(&nexus.disk, false));
    assert_eq!(nexus.run("c1 00 00 00 00 00", ""), "check 6/2a/09", "even of a command that is none");
    nexus.run("a0 00 00 000000 00000100 00 00", "");
    assert_eq!(nexus.run(ready, ""), "good", "REPORT LUNS has told the other");

    nexus.unit.raise(Attention::CapacityChanged);
    let sense = hex(&bytes("70 00 06 00000000 0a 00000000 2a 09 00 000000"));
    assert_eq!(nexus.run("03 00 00 00 fc 00", ""), sense, "REQUEST SENSE is told it as data");
    assert_eq!(nexus.run(ready, ""), "good");

    nexus.run("15 10 00 00 10 00", "00000000 0a 0a 06 10 08 00 0000 0000 0000");
    assert!(nexus.unit.modes().write_protect);
    nexus.unit.reset(Attention::UnitReset);
    assert_eq!(nexus.run(ready, ""), "check 6/29/03");
    assert!(!nexus.unit.modes().write_protect, "a reset brings the defaults back");
    assert!(Unit::resumed().is_plain(&nexus.disk, true), "a unit that goes on has nothing to say");
}

#[test]
fn a_stopped_unit() {
    let mut nexus = Nexus::new(disk());
    table(
        &mut nexus,
        &[
            ("STOP flushes", "1b 00 00 00 00 00", "", "Flush"),
            ("not ready", "00 00 00 00 00 00", "", "check 2/04/02"),
            ("no reads", "28 00 00000000 00 0001 00", "", "check 2/04/02"),
            ("modes can be read", "1a 08 08 00 04 00", "", "17 00 10 00"),
            ("sense says so", "03 01 00 00 fc 00", "", "72 02 04 02 00 00 00 00"),
            ("START", "1b 00 00 00 01 00", "", "good"),
            ("ready", "00 00 00 00 00 00", "", "good"),
            ("NO_FLUSH", "1b 00 00 00 04 00", "", "good"),
            ("ACTIVE starts, too", "1b 00 00 00 10 00", "", "good"),
            ("nothing to eject", "1b 00 00 00 02 00", "", "check 5/24/00 cdb 4.1"),
            ("no standby", "1b 00 00 00 30 00", "", "check 5/24/00 cdb 4.7"),
            ("ready", "00 00 00 00 00 00", "", "good"),
        ],
    );
}

#[test]
fn a_unit_that_is_not_there() {
    let ask = |cdb: &str, units| {
        let mut data = Vec::new();
        let outcome = absent(&Cdb::new(&bytes(cdb)), units, &mut data);
        tell(outcome, &data)
    };
    assert_eq!(ask("12 00 00 00 05 00", true), "7f 00 06 12 5b");
    assert_eq!(ask("12 01 80 00 ff 00", true), "check 5/25/00");
    assert_eq!(ask("00 00 00 00 00 00", true), "check 5/25/00");
    assert_eq!(ask("28 00 00000000 00 0001 00", true), "check 5/25/00");
    assert_eq!(
        ask("a0 00 00 000000 00000100 00 00", true),
        hex(&bytes("00000008 00000000 0000000000000000"))
    );
    assert_eq!(ask("a0 00 00 000000 00000100 00 00", false), hex(&bytes("00000000 00000000")));
    let sense = hex(&bytes("70 00 05 00000000 0a 00000000 25 00 00 000000"));
    assert_eq!(ask("03 00 00 00 fc 00", true), sense);
}

#[test]
fn the_well_known_unit() {
    let ask = |cdb: &str| {
        let mut data = Vec::new();
        let outcome = well_known(
            &Cdb::new(&bytes(cdb)),
            &[*b"\x01\x00\x40\0\0\0\0\0", *b"\x01\x03\x40\0\0\0\0\0"],
            &mut data,
        );
        tell(outcome, &data)
    };
    assert_eq!(
        ask("a0 00 00 000000 00000100 00 00"),
        hex(&bytes("00000010 00000000 0100400000000000 0103400000000000"))
    );
    assert_eq!(ask("12 00 00 00 01 00"), "1e");
    assert_eq!(ask("00 00 00 00 00 00"), "good");
    assert_eq!(ask("28 00 00000000 00 0001 00"), "check 5/20/00");
}

#[test]
fn status_codes() {
    let codes =
        [Status::Good, Status::CheckCondition, Status::Busy, Status::TaskSetFull, Status::TaskAborted];
    assert_eq!(codes.map(|status| status as u8), [0x00, 0x02, 0x08, 0x28, 0x40]);
}
