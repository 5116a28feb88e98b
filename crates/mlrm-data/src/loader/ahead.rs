//! Work that a thread does before it is asked for.

use std::iter::Empty;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use super::no_threads;
use crate::error::DataError;

/// The items of an iterator, some of which are made ahead by a thread of its own.
///
/// After an error there are no more. Dropping it sets the flag `stop`, which the iterator may look at in the
/// midst of an item, and waits for the thread.
#[derive(Debug)]
pub struct Ahead<I, T> {
    source: Source<I, T>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Source<I, T> {
    /// Items are made when they are asked for.
    OnDemand(I),
    /// A thread makes them ahead.
    Ahead {
        receiver: Receiver<T>,
        worker: JoinHandle<()>,
    },
    /// There was an error, or there are no more.
    Ended,
}

impl<I, T, E> Ahead<I, Result<T, E>>
where
    I: Iterator<Item = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    /// At most `ready` of the `items` are there before they are asked for; with 0 each is made when it is.
    ///
    /// # Errors
    /// A system that gives no thread.
    pub fn new(items: I, ready: usize, stop: Arc<AtomicBool>) -> Result<Self, DataError> {
        let source = match ready {
            0 => Source::OnDemand(items),
            ready => {
                Source::ahead(ready, move |send| {
                    // An error is the last item that is taken.
                    let mut items = items;
                    let _broken = items.try_for_each(send);
                })?
            }
        };
        Ok(Self { source, stop })
    }
}

/// Hands an item over, and hears whether more are wanted.
pub type Hand<'a, T> = &'a mut dyn FnMut(T) -> ControlFlow<()>;

impl<T, E> Ahead<Empty<Result<T, E>>, Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    /// What `work` sends; at most `ready` (at least one) items are there before they are asked for.
    ///
    /// # Errors
    /// A system that gives no thread.
    pub fn sent(
        ready: usize,
        work: impl FnOnce(Hand<'_, Result<T, E>>) + Send + 'static,
    ) -> Result<Self, DataError> {
        let source = Source::ahead(ready, work)?;
        let stop = Arc::default();
        Ok(Self { source, stop })
    }
}

impl<I, T, E> Source<I, Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    /// Lets a thread do `work`, which is not told to send more once an item failed or nobody takes it.
    fn ahead(
        ready: usize,
        work: impl FnOnce(Hand<'_, Result<T, E>>) + Send + 'static,
    ) -> Result<Self, DataError> {
        // One more waits in the hands of the thread.
        let (sender, receiver) = sync_channel(ready.saturating_sub(1));
        let send_all = move || {
            work(&mut |item: Result<T, E>| {
                let failed = item.is_err();
                match sender.send(item).is_err() || failed {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
        };
        let worker = thread::Builder::new()
            .name("mlrm-batches".into())
            .spawn(send_all)
            .map_err(|error| no_threads(&error.to_string()))?;
        Ok(Self::Ahead { receiver, worker })
    }
}

impl<I, T, E> Iterator for Ahead<I, Result<T, E>>
where
    I: Iterator<Item = Result<T, E>>,
{
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = match &mut self.source {
            Source::OnDemand(items) => items.next(),
            Source::Ahead { receiver, .. } => receiver.recv().ok(),
            Source::Ended => return None,
        };
        if !matches!(item, Some(Ok(_))) {
            let source = std::mem::replace(&mut self.source, Source::Ended);
            // A panic of the thread is an error of this program: it goes on here, where it is seen.
            if let (None, Source::Ahead { worker, .. }) = (&item, source)
                && let Err(panic) = worker.join()
            {
                std::panic::resume_unwind(panic);
            }
        }
        item
    }
}

impl<I, T> Drop for Ahead<I, T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Source::Ahead { receiver, worker } =
            std::mem::replace(&mut self.source, Source::Ended)
        {
            // Wakes the thread where it waits to hand over an item.
            drop(receiver);
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn ahead<I>(items: I, ready: usize) -> Ahead<I, I::Item>
    where
        I: Iterator<Item = Result<usize, &'static str>> + Send + 'static,
    {
        Ahead::new(items, ready, Arc::default()).unwrap()
    }

    #[test]
    fn items_come_in_order_until_one_fails() {
        for ready in 0..4 {
            let all: Vec<_> = ahead((0..9).map(Ok), ready).collect();
            assert_eq!(all, (0..9).map(Ok).collect::<Vec<_>>());
            let failing = (0..9).map(|n| if n < 3 { Ok(n) } else { Err("broken") });
            let all: Vec<_> = ahead(failing, ready).collect();
            assert_eq!(all, [Ok(0), Ok(1), Ok(2), Err("broken")]);
        }
    }

    #[test]
    fn what_is_sent_is_heard_until_nobody_listens() {
        let (sent, heard) = std::sync::mpsc::channel();
        let count = |send: Hand<'_, Result<usize, &'static str>>| {
            let _broken = (0..).try_for_each(|n| send(if n < 3 { Ok(n) } else { Err("broken") }));
        };
        let all: Vec<_> = Ahead::sent(1, count).unwrap().collect();
        assert_eq!(all, [Ok(0), Ok(1), Ok(2), Err("broken")]);
        let mut endless = Ahead::sent(1, move |send: Hand<'_, Result<usize, &'static str>>| {
            let _broken = (0..).try_for_each(|n| send(Ok(n)));
            sent.send(()).unwrap();
        })
        .unwrap();
        assert_eq!(endless.next(), Some(Ok(0)));
        drop(endless);
        heard.recv().unwrap();
    }

    #[test]
    fn making_and_using_overlap() {
        let pause = Duration::from_millis(8);
        let seconds = |ready| {
            let begun = Instant::now();
            let slow = (0..25).map(move |n| {
                thread::sleep(pause);
                Ok(n)
            });
            for item in ahead(slow, ready) {
                item.unwrap();
                thread::sleep(pause);
            }
            begun.elapsed().as_secs_f64()
        };
        // One after the other takes 50 pauses, both at once 26; sleeping takes no processor.
        let (apart, at_once) = (seconds(0), seconds(2));
        assert!(at_once < 0.8 * apart, "{at_once} of {apart}");
    }

    #[test]
    fn dropping_stops_an_endless_source() {
        let mut endless = ahead((0..).map(Ok), 2);
        assert_eq!(endless.next(), Some(Ok(0)));
        drop(endless);
    }
}
