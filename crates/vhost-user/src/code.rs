//! Numbers of requests (vhost-user.rst, «Front-end message types» and «Back-end message types»).

/// Defines an enumeration of request numbers with `from_number`.
macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $($variant = $number,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The request with this number, if the protocol has one.
            pub fn from_number(number: u32) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }
        }
    };
}

numbers! {
    /// What a front end asks of a back end.
    Request {
        GetFeatures = 1,
        SetFeatures = 2,
        SetOwner = 3,
        ResetOwner = 4,
        SetMemTable = 5,
        SetLogBase = 6,
        SetLogFd = 7,
        SetVringNum = 8,
        SetVringAddr = 9,
        SetVringBase = 10,
        GetVringBase = 11,
        SetVringKick = 12,
        SetVringCall = 13,
        SetVringErr = 14,
        GetProtocolFeatures = 15,
        SetProtocolFeatures = 16,
        GetQueueNum = 17,
        SetVringEnable = 18,
        SendRarp = 19,
        NetSetMtu = 20,
        SetBackendReqFd = 21,
        IotlbMsg = 22,
        SetVringEndian = 23,
        GetConfig = 24,
        SetConfig = 25,
        CreateCryptoSession = 26,
        CloseCryptoSession = 27,
        PostcopyAdvise = 28,
        PostcopyListen = 29,
        PostcopyEnd = 30,
        GetInflightFd = 31,
        SetInflightFd = 32,
        GpuSetSocket = 33,
        ResetDevice = 34,
        VringKick = 35,
        GetMaxMemSlots = 36,
        AddMemReg = 37,
        RemMemReg = 38,
        SetStatus = 39,
        GetStatus = 40,
        GetSharedObject = 41,
        SetDeviceStateFd = 42,
        CheckDeviceState = 43,
    }
}

numbers! {
    /// What a back end asks of a front end, on the back-end channel.
    BackendRequest {
        IotlbMsg = 1,
        ConfigChangeMsg = 2,
        VringHostNotifierMsg = 3,
        VringCall = 4,
        VringErr = 5,
    }
}

impl Request {
    /// Whether the sender waits for a reply even if it did not ask for an acknowledgement. (SET_LOG_BASE is answered
    /// only with LOG_SHMFD: the session knows.)
    pub fn expects_reply(self) -> bool {
        use Request::*;
        matches!(
            self,
            GetFeatures
                | GetProtocolFeatures
                | GetVringBase
                | GetQueueNum
                | GetConfig
                | GetInflightFd
                | GetMaxMemSlots
                | GetStatus
                | IotlbMsg
                | CreateCryptoSession
                | PostcopyAdvise
                | PostcopyEnd
                | GetSharedObject
                | SetDeviceStateFd
                | CheckDeviceState
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_one_to_one() {
        for request in Request::ALL {
            assert_eq!(Request::from_number(*request as u32), Some(*request));
        }
        assert_eq!(Request::from_number(0), None);
        assert_eq!(Request::from_number(44), None);
        assert_eq!(Request::ALL.len(), 43);
        for request in BackendRequest::ALL {
            assert_eq!(BackendRequest::from_number(*request as u32), Some(*request));
        }
    }
}
