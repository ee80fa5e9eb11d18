//! Identify data of the model.

use super::processor::Processor;
use crate::spec::{Command, PAGE};

impl Processor {
    pub(super) fn identify(&self, command: &Command) -> Option<Box<[u8; PAGE]>> {
        let mut page = Box::new([0; PAGE]);
        match command.0[10] & 0xff {
            0 => self.identify_namespace(command.0[1], &mut page),
            1 => self.identify_controller(&mut page),
            2 => {
                let after = command.0[1];
                let ids = self.media.ids().filter(|&id| id > after);
                for (id, place) in ids.zip(page.chunks_exact_mut(4)) {
                    place.copy_from_slice(&id.to_le_bytes());
                }
            }
            3 => {
                page[0..4].copy_from_slice(&[3, 16, 0, 0]);
                page[4..20].fill(0xa0u8.wrapping_add(command.0[1] as u8));
            }
            _ => return None,
        }
        Some(page)
    }

    fn identify_controller(&self, page: &mut [u8; PAGE]) {
        let text = |page: &mut [u8; PAGE], at: usize, length: usize, text: &str| {
            page[at..at + length].fill(b' ');
            page[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        page[0..4].copy_from_slice(&[0x36, 0x1b, 0xf4, 0x1a]);
        text(page, 4, 20, &self.options.serial);
        text(page, 24, 40, "nvlane modelled controller");
        text(page, 64, 8, "1.0");
        page[77] = self.options.max_transfer_shift;
        page[93] = 1; // OAES: namespace attribute notices
        page[111] = 1;
        page[257] = u8::from(self.options.shadow_doorbells); // OACS bit 8
        page[258] = 3;
        page[259] = 3;
        page[512] = 0x66;
        page[513] = 0x44;
        page[516..520].copy_from_slice(&256u32.to_le_bytes());
        page[520] = 1 << 2 | 1 << 3; // ONCS: Dataset Management, Write Zeroes
        page[525] = u8::from(self.options.volatile_cache);
        let name = b"nqn.2026-01.invalid.nvlane:emulated";
        page[768..768 + name.len()].copy_from_slice(name);
    }

    fn identify_namespace(&self, id: u32, page: &mut [u8; PAGE]) {
        let Some(namespace) = self.media.get(id) else { return };
        let blocks = namespace.blocks().to_le_bytes();
        for at in [0, 8, 16] {
            page[at..at + 8].copy_from_slice(&blocks);
        }
        page[33] = 1 << 3 | 1; // DLFEAT: zeroes after deallocation, also by Write Zeroes
        page[46..48].copy_from_slice(&namespace.optimal_boundary.to_le_bytes());
        let format = u32::from(namespace.metadata) | namespace.block_size.trailing_zeros() << 16;
        page[128..132].copy_from_slice(&format.to_le_bytes());
    }
}
